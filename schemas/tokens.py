# pyright: standard
# (pyarrow ships no stubs: strict would report each of its names)
"""The row a trainer reads: the kept tokens of one window, which they are, and where it came from.

Shapes: t, h, w = latent frames, rows, columns; n = t*h*w positions; N = kept tokens.
In memory a row is a dict: lists are numpy arrays of the column's dtype, float32 columns are Python
floats that float32 can hold, so a row equals itself after Parquet or JSON.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.ids import clip_id
from schemas.tables import not_null, nullable
from schemas.units import window_sum
from schemas.windows import StreamFacts, WindowAnalysis, WindowSpan

__all__ = [
    "MAX_CODES",
    "NUM_CODES",
    "TOKEN_SCHEMA",
    "bpp16",
    "float32",
    "pack_mask",
    "rows_to_table",
    "table_to_rows",
    "token_row",
    "unpack_mask",
]

NUM_CODES = 64000
"""FSQ codebook [8, 8, 8, 5, 5, 5] of the published family; what a corpus has stands in
``TokenizerInfo.num_codes``. The ids above, to 65535, are free for the trainer's specials."""

MAX_CODES = 1 << 16
"""Tokens are stored as uint16."""


def _list(kind: pa.DataType) -> pa.DataType:
    return pa.list_(not_null("element", kind))


TOKEN_SCHEMA = pa.schema(
    [
        not_null("clip_id", pa.string(), "key, no dots: video id and window index"),
        not_null(
            "tokens", _list(pa.uint16()), "kept FSQ indices, (t, h, w) raster order, no special ids"
        ),
        not_null("mask", pa.binary(), "np.packbits (big-endian) over t*h*w positions; 1 = kept"),
        not_null("num_tokens", pa.int32(), "popcount(mask) = len(tokens)"),
        not_null("frame_token_counts", _list(pa.uint16()), "kept tokens per latent frame"),
        not_null("grid_t", pa.int16(), "latent frames"),
        not_null("grid_h", pa.int16(), "latent rows"),
        not_null("grid_w", pa.int16(), "latent columns"),
        not_null("rate_target", pa.float32(), "what the router asked for this window"),
        not_null("rate", pa.float32(), "num_tokens / (grid_t*grid_h*grid_w)"),
        not_null("elbo", pa.float32(), "mean information; unit and sign in meta/info.json"),
        not_null("frame_elbo", _list(pa.float32()), "mean information per latent frame"),
        not_null("source", pa.string(), "URI relative to the source root of meta/info.json"),
        not_null("video_id", pa.string(), "SHA-256 of source, first 16 bytes, hex"),
        not_null("window_index", pa.int32(), "position on the video's window grid"),
        not_null("start_time_s", pa.float64(), "source timeline (PTS), half-open"),
        not_null("end_time_s", pa.float64(), "source timeline (PTS), half-open"),
        not_null("start_frame", pa.int64(), "first sampled frame"),
        not_null("num_frames", pa.int32(), "frames with content; padding is not counted"),
        not_null("fps", pa.float32(), "rate of the sampled frames"),
        nullable("source_fps", pa.float32(), "average rate of the source, if it has one"),
        not_null("width", pa.int16(), "columns the network saw"),
        not_null("height", pa.int16(), "rows the network saw"),
        not_null("source_width", pa.int32(), "columns as coded"),
        not_null("source_height", pa.int32(), "rows as coded"),
        not_null("tokenizer", pa.string(), "fingerprint of the tokenizer"),
    ]
)

_MAX_FRAME_TOKENS = np.iinfo(np.uint16).max


def pack_mask(mask: npt.NDArray[np.bool_]) -> bytes:
    """Bits of a boolean mask [t, h, w] in raster order, first position in the highest bit.

    Raises:
        ValueError: If it is not boolean: packbits would take any other non-zero for 1.
    """
    if mask.dtype != np.bool_:
        raise ValueError(f"mask must be bool, not {mask.dtype}")
    return np.packbits(mask.reshape(-1)).tobytes()


def unpack_mask(data: bytes, shape: tuple[int, int, int]) -> npt.NDArray[np.bool_]:
    """Undo `pack_mask`.

    Raises:
        ValueError: If the bytes do not fit the shape, or a padding bit is set.
    """
    size = math.prod(shape)
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    if len(data) != (size + 7) // 8 or bits[size:].any():
        raise ValueError(f"a mask of {len(data)} bytes does not fit the grid {shape}")
    return bits[:size].astype(np.bool_).reshape(shape)


def bpp16(num_tokens: int, cells: int, pixels: int, *, num_codes: int = NUM_CODES) -> float:
    """The paper's rate: bits of the kept tokens and of the mask, per 16 pixels.

    Args:
        num_tokens: Kept tokens, each log2(num_codes) bits.
        cells: Positions t*h*w, each one mask bit.
        pixels: Frames * rows * columns with content.
        num_codes: Size of the vocabulary.
    """
    return (num_tokens * math.log2(num_codes) + cells) / pixels * 16


def token_row(
    window: WindowAnalysis,
    mask: npt.NDArray[np.bool_],
    *,
    facts: StreamFacts,
    video: str,
    source: str,
    tokenizer: str,
    rate_target: float,
    num_codes: int = NUM_CODES,
    extra: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """The row of one window.

    Args:
        window: Its analysis.
        mask: bool [t, h, w]; true where the token is kept. At least one is.
        facts: Of its video.
        video: Video id.
        source: Canonical URI relative to the source root.
        tokenizer: Fingerprint.
        rate_target: What the router asked for, in (0, 1].
        num_codes: Size of the tokenizer's vocabulary.
        extra: Further columns; see `rows_to_table`.

    Raises:
        ValueError: If the mask has another shape or keeps nothing, or a code is out of range.
    """
    tokens, counts = _kept(window.codes, mask, num_codes)
    return {
        "clip_id": clip_id(video, window.span.window_index),
        "tokens": tokens,
        "mask": pack_mask(mask),
        "num_tokens": int(tokens.size),
        "frame_token_counts": counts,
        "grid_t": int(mask.shape[0]),
        "grid_h": int(mask.shape[1]),
        "grid_w": int(mask.shape[2]),
        "rate_target": float32(rate_target),
        "rate": float32(tokens.size / mask.size),
        "elbo": float32(_mean(window.information)),
        "frame_elbo": np.array([_mean(frame) for frame in window.information], np.float32),
        "source": source,
        "video_id": video,
        **_time_columns(window.span),
        **_picture_columns(facts),
        "tokenizer": tokenizer,
        **(extra or {}),
    }


def _kept(
    codes: npt.NDArray[np.uint16], mask: npt.NDArray[np.bool_], num_codes: int
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
    """The tokens that are kept, and how many of each latent frame."""
    if mask.shape != codes.shape or not mask.any():
        raise ValueError(
            f"mask {mask.shape} must fit codes {codes.shape} and keep at least one of them"
        )
    tokens = codes[mask]
    if tokens.max() >= num_codes:
        raise ValueError(f"code {tokens.max()} is out of range [0, {num_codes})")
    counts = mask.reshape(mask.shape[0], -1).sum(axis=1)
    if counts.max() > _MAX_FRAME_TOKENS:
        raise ValueError(f"{counts.max()} tokens in one latent frame do not fit uint16")
    return tokens, counts.astype(np.uint16)


def _time_columns(span: WindowSpan) -> dict[str, Any]:
    return {
        "window_index": span.window_index,
        "start_time_s": span.start_time_s,
        "end_time_s": span.end_time_s,
        "start_frame": span.start_frame,
        "num_frames": span.num_frames,
    }


def _picture_columns(facts: StreamFacts) -> dict[str, Any]:
    return {
        "fps": float32(facts.fps),
        "source_fps": None if facts.source_fps is None else float32(facts.source_fps),
        "width": facts.width,
        "height": facts.height,
        "source_width": facts.source_width,
        "source_height": facts.source_height,
    }


def float32(value: float) -> float:
    """The nearest float32, as a Python float."""
    return float(np.float32(value))


def _mean(information: npt.NDArray[np.float16]) -> float:
    return math.ldexp(window_sum(information) / information.size, -24)


def rows_to_table(
    rows: Sequence[Mapping[str, Any]], extra_fields: Sequence[pa.Field] = ()
) -> pa.Table:
    """Rows as a table of `TOKEN_SCHEMA`, further columns appended behind.

    Raises:
        ValueError: If an extra column has the name of one of ours or occurs twice, a required
            value is missing, or a value does not fit its type.
    """
    names = [*TOKEN_SCHEMA.names, *(field.name for field in extra_fields)]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"extra columns {twice} have names that are taken: rename them")
    schema = pa.schema([*TOKEN_SCHEMA, *extra_fields])
    return pa.table([_column(rows, field) for field in schema], schema=schema)


def _column(rows: Sequence[Mapping[str, Any]], field: pa.Field) -> pa.Array:
    values = [row.get(field.name) for row in rows]
    if not field.nullable and any(value is None for value in values):
        raise ValueError(f"column {field.name} is required but missing in a row")
    if not pa.types.is_list(field.type):
        try:
            return pa.array(values, field.type)
        except pa.ArrowException as error:
            raise ValueError(f"column {field.name} does not fit {field.type}: {error}") from error
    dtype = field.type.value_type.to_pandas_dtype()
    arrays = [np.asarray(value, dtype) for value in values]
    offsets = np.concatenate([[0], np.cumsum([array.size for array in arrays], dtype=np.int64)])
    if offsets[-1] > np.iinfo(np.int32).max:
        raise ValueError(f"column {field.name}: {offsets[-1]} values are too many for one table")
    flat = np.concatenate(arrays) if arrays else np.empty(0, dtype)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(flat), type=field.type)


def table_to_rows(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a table, lists as read-only numpy arrays of the column's dtype."""
    columns: dict[str, list[Any]] = {}
    for field in table.schema:
        column = table.column(field.name)
        if not pa.types.is_list(field.type):
            columns[field.name] = column.to_pylist()
            continue
        columns[field.name] = [
            None if scalar.values is None else scalar.values.to_numpy(zero_copy_only=True)
            for chunk in column.chunks
            for scalar in chunk
        ]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
