"""``tokenizer.json``: what cannot be read off a pair of TorchScript programs.

Every key is optional; the defaults are those of the official Cosmos DV4x8x8 programs.
docs/plugin.md has the list for users.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self, cast

from infotok_core.config import published
from infotok_core.errors import CheckpointError
from infotok_core.shape import TokenShape

__all__ = ["SETTINGS_FILE", "ProgramSettings", "read_settings", "settings_text", "zero_index"]

SETTINGS_FILE = "tokenizer.json"
FORMAT_VERSION = 1


def zero_index(levels: tuple[int, ...]) -> int:
    """The FSQ index whose code is the zero vector: 32036 for the published levels.

    Each digit is the middle one, L // 2, in the mixed radix whose first channel counts least.
    """
    basis = itertools.accumulate(levels[:-1], int.__mul__, initial=1)
    return sum(level // 2 * place for level, place in zip(levels, basis, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramSettings:
    """What a pair of programs does, as far as only their author knows it.

    Raises:
        ValueError: If values are out of range or contradict each other.
    """

    temporal_compression: int = 4
    spatial_compression: int = 8
    levels: tuple[int, ...] | None = published().levels
    """Of an FSQ; None: another quantiser, with ``codebook_size`` and ``fill_index`` instead."""
    codebook_size: int = published().codebook_size
    fill_index: int = zero_index(published().levels)
    """What a dropped position is decoded as, unless the decoder takes a mask."""
    precision: Literal["float32", "bfloat16"] | None = None
    """The one that the programs compute in; None: they are cast to what is asked for."""
    window: tuple[int, int, int] | None = None
    """(T, H, W) of programs that were traced for one shape alone."""
    max_grid: tuple[int, int, int] | None = None
    """Largest (t, h, w) that the programs have embeddings for."""

    def __post_init__(self) -> None:
        if min(self.temporal_compression, self.spatial_compression) < 1:
            raise ValueError("a compression is at least 1")
        if self.codebook_size < 1:
            raise ValueError("codebook_size is at least 1")
        if self.levels is not None and math.prod(self.levels) != self.codebook_size:
            raise ValueError(
                f"levels {list(self.levels)} make {math.prod(self.levels)} codes, "
                f"codebook_size is {self.codebook_size}"
            )
        if not 0 <= self.fill_index < self.codebook_size:
            raise ValueError(f"fill_index {self.fill_index} exceeds 0..{self.codebook_size - 1}")
        if self.precision not in (None, "float32", "bfloat16"):
            raise ValueError(f"precision is float32 or bfloat16, not {self.precision!r}")
        if self.window is not None:
            self.shape.grid(*self.window)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read the keys of ``tokenizer.json``; see docs/plugin.md.

        Raises:
            ValueError: On an unknown key, a wrong type, or values that do not fit.
        """
        values = dict(document)
        version = values.pop("format_version", FORMAT_VERSION)
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise ValueError(f"format version {version!r} is newer than {FORMAT_VERSION}")
        names = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - names):
            raise ValueError(f"unknown keys {unknown}; there are {sorted(names)}")
        for name in ("levels", "window", "max_grid"):
            if values.get(name) is not None:
                values[name] = _integers(name, values[name])
        for name in ("temporal_compression", "spatial_compression", "codebook_size", "fill_index"):
            if name in values and (not isinstance(values[name], int) or values[name] is True):
                raise ValueError(f"{name} is a whole number, not {values[name]!r}")
        return cls(**_vocabulary(values))

    def to_document(self) -> dict[str, Any]:
        """What `from_document` reads, with every key."""
        document: dict[str, Any] = {"format_version": FORMAT_VERSION}
        for field in fields(self):
            value = getattr(self, field.name)
            document[field.name] = list(value) if isinstance(value, tuple) else value
        return document

    @property
    def shape(self) -> TokenShape:
        """Compression, vocabulary and windows."""
        return TokenShape(
            temporal_compression=self.temporal_compression,
            spatial_compression=self.spatial_compression,
            codebook_size=self.codebook_size,
            max_grid=self.max_grid,
            window=self.window,
        )


def settings_text(settings: ProgramSettings) -> str:
    """The content of a ``tokenizer.json``."""
    return json.dumps(settings.to_document(), indent=2, sort_keys=True) + "\n"


def read_settings(directory: Path) -> ProgramSettings:
    """The settings beside a pair of programs; the defaults where there is no file.

    Raises:
        CheckpointError: If the file cannot be read, naming it.
    """
    file = directory / SETTINGS_FILE
    try:
        document: object = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ProgramSettings()
    except (OSError, ValueError) as error:
        raise CheckpointError(str(file), f"is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise CheckpointError(str(file), "is not a JSON object")
    try:
        return ProgramSettings.from_document(cast(dict[str, Any], document))
    except ValueError as error:
        raise CheckpointError(str(file), str(error)) from error


def _vocabulary(values: dict[str, Any]) -> dict[str, Any]:
    """Fill in what one of ``levels`` and ``codebook_size`` says of the other, and of the fill."""
    levels = values.get("levels")
    if levels:
        if min(levels) < 2:
            raise ValueError(f"each FSQ level needs at least two values: {list(levels)}")
        derived = {"codebook_size": math.prod(levels), "fill_index": zero_index(levels)}
        return derived | values
    if "codebook_size" not in values:
        if "levels" in values:
            raise ValueError("codebook_size is needed where there are no levels")
        return values
    if "fill_index" not in values:
        raise ValueError(
            "fill_index is needed where there are no levels: the index that dropped positions are "
            "decoded as"
        )
    return {**values, "levels": None}


def _integers(name: str, value: object) -> tuple[int, ...]:
    items = cast(list[object], value) if isinstance(value, list) else []
    count = 3 if name in ("window", "max_grid") else len(items)
    if len(items) != max(count, 1) or not all(type(i) is int and i > 0 for i in items):
        wanted = f"{count} positive whole numbers" if count else "positive whole numbers"
        raise ValueError(f"{name} is a list of {wanted}, not {value!r}")
    return tuple(cast(list[int], items))
