"""From a TOML file and ``--set`` to one validated `RunConfig`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from pipelines.config import RunConfig

__all__ = ["load_config"]


def load_config(
    path: Path | None = None,
    assignments: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    *,
    base: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Defaults, then ``base`` or the file, then ``--set`` assignments, then explicit options.

    Args:
        path: TOML file with the tables of `RunConfig`.
        assignments: ``table.key=value``; the value is TOML, a bare word is a string.
        overrides: Dotted keys with values that are not None win over everything.
        base: Tables as they are stored with a corpus.

    Raises:
        click.UsageError: Naming every unknown key and wrong value.
    """
    document: dict[str, Any] = {name: dict(table) for name, table in (base or {}).items()}
    if path is not None:
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as error:
            raise click.UsageError(f"{path}: {error}") from error
    for assignment in assignments:
        key, separator, value = assignment.partition("=")
        if not separator or not key.strip():
            raise click.UsageError(f"--set wants table.key=value, not {assignment!r}")
        _put(document, key.strip(), _parse(value.strip()))
    for key, value in (overrides or {}).items():
        if value is not None:
            _put(document, key, value)
    try:
        return RunConfig.model_validate(document)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors()
        ]
        raise click.UsageError("invalid configuration:\n" + "\n".join(lines)) from error


def _parse(text: str) -> Any:  # noqa: ANN401  any TOML value
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _put(document: dict[str, Any], dotted: str, value: Any) -> None:  # noqa: ANN401
    *tables, key = dotted.split(".")
    place: Any = document
    for table in tables:
        place = place.setdefault(table, {})
        if not isinstance(place, dict):
            raise click.UsageError(f"{dotted}: {table} is not a table")
    place[key] = value
