"""Names that depend on content location only: the same video has the same ids in every store.

A corpus made from a bucket equals the one made from a copy on disk because a video is known by its
path relative to the source root, spelled canonically, and by nothing else.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from schemas.documents import canonical_json

__all__ = [
    "WINDOWS_PER_UNIT",
    "clip_id",
    "digest",
    "quote_path",
    "unit_id",
    "unquote_path",
    "video_id",
]

WINDOWS_PER_UNIT = 16
"""Windows of one work unit; 16 windows of 33 x 256 x 256 are 104 MB of uint8 frames."""

_MAX_WINDOWS = 10**6
_MAX_UNITS = 10**5
# The escape itself, control characters, and the surrogates that stand for undecodable bytes.
_QUOTED = re.compile("[%\x00-\x1f\x7f\udc80-\udcff]")
_ESCAPE = re.compile(b"%([0-9A-Fa-f]{2})?")


def quote_path(path: str | bytes) -> str:
    """Spell a path as text that every store, table and JSON document can hold.

    Only ``%``, control characters and bytes that are not UTF-8 are percent-encoded, so ordinary
    names (blanks, accents, CJK) stay readable. Different byte strings give different texts; Unicode
    is *not* normalised, because two files may differ in that alone.

    Args:
        path: Bytes, or text in which undecodable bytes are surrogate escapes (``os.fsdecode``).

    Raises:
        ValueError: If the text holds a surrogate that stands for no byte.
    """
    if isinstance(path, str) and path.isascii() and path.isprintable() and "%" not in path:
        return path
    try:
        raw = path if isinstance(path, bytes) else path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ValueError(f"path {path!r} holds a surrogate that stands for no byte") from error
    text = raw.decode("utf-8", "surrogateescape")
    return _QUOTED.sub(lambda match: f"%{ord(match.group()) & 0xFF:02X}", text)


def unquote_path(text: str) -> str:
    """Undo `quote_path`: text for ``os.fsencode``, undecodable bytes as surrogate escapes.

    Raises:
        ValueError: If a ``%`` is not followed by two hex digits.
    """

    def byte(match: re.Match[bytes]) -> bytes:
        if match.group(1) is None:
            raise ValueError(f"{text!r} is no canonical path: a % without two hex digits after it")
        return bytes.fromhex(match.group(1).decode("ascii"))

    raw = _ESCAPE.sub(byte, text.encode("utf-8", "surrogateescape"))
    return raw.decode("utf-8", "surrogateescape")


def video_id(uri: str) -> str:
    """32 hex digits for a canonical URI: the first 16 bytes of its SHA-256.

    Args:
        uri: As `quote_path` spells it. Another spelling of the same path gives another id.
    """
    return hashlib.sha256(uri.encode("utf-8")).hexdigest()[:32]


def clip_id(video: str, window_index: int) -> str:
    """Key of one window; without dots, at which WebDataset would split it.

    Raises:
        ValueError: If the index is negative or has more than six digits.
    """
    if not 0 <= window_index < _MAX_WINDOWS:
        raise ValueError(f"window_index must be in [0, {_MAX_WINDOWS}), not {window_index}")
    return f"{video}-{window_index:06d}"


def unit_id(video: str, unit_index: int) -> str:
    """Key of the windows [16 k, 16 k + 16) of one video.

    Raises:
        ValueError: If the index is negative or has more than five digits.
    """
    if not 0 <= unit_index < _MAX_UNITS:
        raise ValueError(f"unit_index must be in [0, {_MAX_UNITS}), not {unit_index}")
    return f"{video}-u{unit_index:05d}"


def digest(document: Any) -> str:  # noqa: ANN401  any JSON value
    """SHA-256 (hex) of the canonical JSON of a document; see `documents.canonical_json`."""
    return hashlib.sha256(canonical_json(document)).hexdigest()
