"""Small JSON documents: frozen, versioned, and the same bytes wherever they are written."""

from __future__ import annotations

import json
from typing import Any, Self, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.versions import FORMAT_VERSION, FormatError, check_version

__all__ = ["Document", "Part", "canonical_json", "parse_json"]


def canonical_json(document: Any, *, indent: int | None = None) -> bytes:  # noqa: ANN401  any JSON value
    """ASCII JSON with sorted keys: equal documents give equal bytes.

    Args:
        document: Strings, ints, finite floats, bools, None, lists and str-keyed dicts of these.
        indent: Spaces per level for people; None for one line without spaces.

    Raises:
        ValueError: If it holds NaN or infinity, which JSON cannot say.
        TypeError: If it holds anything else that is not JSON.
    """
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(
        document,
        sort_keys=True,
        separators=separators,
        ensure_ascii=True,
        allow_nan=False,
        indent=indent,
    )
    return text.encode("ascii") + (b"" if indent is None else b"\n")


def parse_json(data: bytes, *, what: str) -> dict[str, Any]:
    """Read one JSON object and check its ``format_version``.

    Raises:
        FormatError: If the bytes are no JSON object, or of another version.
    """
    try:
        document: Any = json.loads(data)
    except ValueError as error:
        raise FormatError(f"{what} is not JSON ({len(data)} bytes): {error}") from error
    if not isinstance(document, dict):
        raise FormatError(f"{what} is not a JSON object")
    fields = cast("dict[str, Any]", document)
    check_version(fields.get("format_version"), what=what)
    return fields


class Part(BaseModel):
    """A frozen piece of a document; unknown keys are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Document(Part):
    """A frozen, versioned JSON document that is stored as one object."""

    format_version: int = FORMAT_VERSION

    def to_bytes(self, *, indent: int | None = None) -> bytes:
        """Canonical JSON: equal documents give equal bytes."""
        return canonical_json(self.model_dump(mode="json"), indent=indent)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote.

        Raises:
            FormatError: If the bytes are damaged, of another version, or break a rule.
        """
        return cls._validated(parse_json(data, what=cls.__name__))

    @classmethod
    def _validated(cls, document: dict[str, Any]) -> Self:
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "document"
            raise FormatError(
                f"{cls.__name__} does not fit its schema at {place}: {first['msg']} "
                f"({error.error_count()} errors)"
            ) from error
