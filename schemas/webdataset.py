"""A token row as the members of a WebDataset sample, which plain ``wds`` decodes to arrays.

``{clip_id}.json`` holds everything but the arrays, ``{clip_id}.mask.npy`` the packed bits (uint8),
``{clip_id}.tokens.npy`` the ids (uint16; torch cannot index with that: cast first).
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from schemas.documents import canonical_json
from schemas.versions import FORMAT_VERSION, FormatError, check_version

__all__ = ["member_row", "sample_members"]

_TOKENS, _MASK, _JSON = "tokens.npy", "mask.npy", "json"


def sample_members(row: Mapping[str, Any]) -> list[tuple[str, bytes]]:
    """Member names and bytes of one row, sorted by name.

    Left out of the JSON: nulls (a null and a string in one field break readers that infer types)
    and NaN or infinity, which JSON cannot say.

    Raises:
        ValueError: If the clip id holds a dot (WebDataset would split the key there) or a slash.
    """
    key = row["clip_id"]
    if "." in key or "/" in key:
        raise ValueError(f"clip_id {key!r} must hold neither dots nor slashes")
    rest = {
        name: _plain(value)
        for name, value in row.items()
        if name not in ("tokens", "mask") and not _unspeakable(value)
    }
    members = [
        (_JSON, canonical_json({**rest, "format_version": FORMAT_VERSION})),
        (_MASK, _npy(np.frombuffer(row["mask"], np.uint8))),
        (_TOKENS, _npy(np.asarray(row["tokens"], np.uint16))),
    ]
    return [(f"{key}.{suffix}", data) for suffix, data in members]


def member_row(members: Mapping[str, bytes]) -> dict[str, Any]:
    """The row of a sample: lists stay lists, and columns that were null are absent.

    Args:
        members: Bytes by the part of the member name behind the first dot.

    Raises:
        FormatError: If a member is missing, damaged or of another version.
    """
    try:
        row = json.loads(members[_JSON])
        tokens, mask = _load(members[_TOKENS]), _load(members[_MASK])
    except KeyError as error:
        raise FormatError(f"WebDataset sample has no member {error}") from error
    except (ValueError, EOFError) as error:
        raise FormatError(f"WebDataset sample is damaged: {error}") from error
    if not isinstance(row, dict):
        raise FormatError("WebDataset sample: its JSON is not an object")
    fields = cast("dict[str, Any]", row)
    check_version(fields.pop("format_version", None), what="WebDataset sample")
    return {**fields, "tokens": tokens, "mask": mask.tobytes()}


def _unspeakable(value: object) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _plain(value: Any) -> Any:  # noqa: ANN401  a cell of any column
    if isinstance(value, np.ndarray):
        return cast("npt.NDArray[Any]", value).tolist()
    return value


def _npy(array: npt.NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)
    return file.getvalue()


def _load(data: bytes) -> npt.NDArray[Any]:
    return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
