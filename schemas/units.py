"""The analysis of a work unit as one Parquet object: all that pass two needs, and nothing else.

One row per window: its place, its codes and its information map, both flattened in (t, h, w) raster
order. Deterministic: equal windows give equal bytes, which is what lets a repeated unit be
published again.
"""

# pyright: standard
# (pyarrow ships no stubs: strict would report each of its names)
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.ids import clip_id, unit_id
from schemas.tables import not_null, read_parquet, write_parquet
from schemas.versions import FormatError
from schemas.windows import WindowAnalysis, WindowSpan

__all__ = ["UNIT_SCHEMA", "decode_unit", "encode_unit", "window_sum"]

UNIT_SCHEMA = pa.schema(
    [
        not_null("clip_id", pa.string(), "key: video id and window index"),
        not_null("window_index", pa.int32(), "position on the video's window grid"),
        not_null("start_frame", pa.int64(), "first sampled frame"),
        not_null("num_frames", pa.int32(), "frames with content"),
        not_null("start_time_s", pa.float64(), "source timeline, half-open"),
        not_null("end_time_s", pa.float64(), "source timeline, half-open"),
        not_null("grid_t", pa.int16(), "latent frames with content"),
        not_null("grid_h", pa.int16(), "latent rows"),
        not_null("grid_w", pa.int16(), "latent columns"),
        not_null("codes", pa.list_(not_null("element", pa.uint16())), "FSQ indices, raster order"),
        not_null(
            "information",
            pa.list_(not_null("element", pa.float16())),
            "mean absolute error per token on pixels in [-1, 1], raster order",
        ),
    ]
)


def window_sum(information: npt.NDArray[np.float16]) -> int:
    """Exact sum of float16 values in units of 2**-24, of which every float16 is a multiple.

    Raises:
        ValueError: If the values are not float16, or one is negative, NaN or infinite.
    """
    if information.dtype != np.float16:
        raise ValueError(f"information must be float16, not {information.dtype}")
    if not np.isfinite(information).all() or (information < 0).any():
        raise ValueError("information holds a negative or non-finite value")
    units = (information.astype(np.float64) * 2.0**24).astype(np.int64).reshape(-1)
    # A float16 is below 2**40 units: blocks of 2**20 cannot overflow, Python adds the blocks.
    blocks = np.add.reduceat(units, np.arange(0, units.size, 1 << 20)) if units.size else []
    return sum(int(block) for block in blocks)


def encode_unit(
    windows: Sequence[WindowAnalysis], *, video: str, unit_index: int, tokenizer: str
) -> bytes:
    """Write the windows of one unit, in order of their index.

    Args:
        windows: At least one; any order, no index twice.
        video: Video id.
        unit_index: Which unit of the video; only checked against the ids it makes.
        tokenizer: Fingerprint of the tokenizer, kept in the file metadata.

    Raises:
        ValueError: If there is no window or an index occurs twice.
    """
    ordered = sorted(windows, key=lambda window: window.span.window_index)
    indices = [window.span.window_index for window in ordered]
    if not indices or len(set(indices)) != len(indices):
        raise ValueError(f"a unit needs windows of distinct index, not {indices}")
    table = pa.table(_columns(ordered, video), schema=UNIT_SCHEMA)
    return write_parquet(
        table,
        metadata={"unit_id": unit_id(video, unit_index), "tokenizer": tokenizer},
        byte_stream_split=("codes.list.element", "information.list.element"),
    )


def _columns(windows: Sequence[WindowAnalysis], video: str) -> list[pa.Array]:
    spans = [window.span for window in windows]
    sizes = [window.codes.size for window in windows]
    offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]), pa.int32())
    codes = np.concatenate([window.codes.reshape(-1) for window in windows])
    information = np.concatenate([window.information.reshape(-1) for window in windows])
    columns: list[Any] = [
        [clip_id(video, span.window_index) for span in spans],
        [span.window_index for span in spans],
        [span.start_frame for span in spans],
        [span.num_frames for span in spans],
        [span.start_time_s for span in spans],
        [span.end_time_s for span in spans],
        *([window.codes.shape[axis] for window in windows] for axis in range(3)),
    ]
    arrays = [pa.array(column, UNIT_SCHEMA.field(i).type) for i, column in enumerate(columns)]
    for name, values in (("codes", codes), ("information", information)):
        kind = UNIT_SCHEMA.field(name).type
        arrays.append(pa.ListArray.from_arrays(offsets, pa.array(values), type=kind))
    return arrays


def decode_unit(data: bytes) -> list[WindowAnalysis]:
    """Read the windows of a unit, in order of their index.

    The arrays are read-only views of one buffer: copy before writing into them.

    Raises:
        FormatError: If the bytes are damaged, of another version, or not a unit.
    """
    table = read_parquet(data, schema=UNIT_SCHEMA, what="unit object").combine_chunks()
    flat = {name: _flat(table.column(name)) for name in ("codes", "information")}
    windows: list[WindowAnalysis] = []
    start = 0
    for row in table.drop_columns(["codes", "information"]).to_pylist():
        shape = row["grid_t"], row["grid_h"], row["grid_w"]
        stop = start + int(np.prod(shape, dtype=np.int64))
        codes, information = flat["codes"][start:stop], flat["information"][start:stop]
        if codes.size != stop - start or information.size != stop - start:
            raise FormatError(f"unit object: row {row['clip_id']} has fewer tokens than its grid")
        start = stop
        try:
            span = WindowSpan(**{name: row[name] for name in WindowSpan.__dataclass_fields__})
            window = WindowAnalysis(
                span=span, codes=codes.reshape(shape), information=information.reshape(shape)
            )
        except ValueError as error:
            raise FormatError(f"unit object: row {row['clip_id']}: {error}") from error
        windows.append(window)
    if start != flat["codes"].size or start != flat["information"].size:
        raise FormatError("unit object: more tokens than the grids of its rows")
    return windows


def _flat(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    return np.concatenate(
        [chunk.flatten().to_numpy(zero_copy_only=True) for chunk in column.chunks]
    )
