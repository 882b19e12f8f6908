"""What travels between the stages of pass one, as Arrow rows: the only place arrays become rows.

Decoding sends one row per unit with its frames (uint8, zero-copy in and out of the object store)
and one row when the video ends; the tokenizer actors turn unit rows into small status rows and pass
the others through. Floats and Python objects never travel.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.windows import WindowSpan

__all__ = [
    "DecodedUnit",
    "Status",
    "statuses_to_table",
    "table_to_statuses",
    "table_to_units",
    "unit_to_table",
]

Kind = Literal["unit", "end"]

_SCHEMA = pa.schema(
    [
        pa.field("kind", pa.string()),
        pa.field("video_id", pa.string()),
        pa.field("payload", pa.string()),
        # Present on a unit that is to be analysed; 16 windows of 33x256x256 are 104 MB.
        pa.field("frames", pa.large_binary()),
        pa.field("shape", pa.list_(pa.int32())),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedUnit:
    """Windows of one unit on their way to the tokenizer.

    Attributes:
        path: Name of the unit object to store.
        frames_NTHWC: uint8; N windows, tails padded by repeating the last frame.
    """

    video: str
    unit_index: int
    path: str
    spans: tuple[WindowSpan, ...]
    frames_NTHWC: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A small row for the driver: a unit was stored (or failed), or a video ended."""

    kind: Kind
    video: str
    payload: Mapping[str, Any]


def unit_to_table(unit: DecodedUnit) -> pa.Table:
    """One row; the frames are referenced, not copied."""
    payload = {
        "unit_index": unit.unit_index,
        "path": unit.path,
        "spans": [asdict(span) for span in unit.spans],
    }
    frames = np.ascontiguousarray(unit.frames_NTHWC).reshape(-1)
    offsets = pa.py_buffer(np.array([0, frames.nbytes], np.int64))
    binary = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, pa.py_buffer(frames)])
    columns = [
        pa.array(["unit"]),
        pa.array([unit.video]),
        pa.array([json.dumps(payload)]),
        binary,
        pa.array([list(unit.frames_NTHWC.shape)], pa.list_(pa.int32())),
    ]
    return pa.Table.from_arrays(columns, schema=_SCHEMA)


def statuses_to_table(statuses: Sequence[Status]) -> pa.Table:
    """Rows without frames."""
    return pa.table(
        {
            "kind": [status.kind for status in statuses],
            "video_id": [status.video for status in statuses],
            "payload": [json.dumps(status.payload) for status in statuses],
            "frames": pa.nulls(len(statuses), pa.large_binary()),
            "shape": pa.nulls(len(statuses), pa.list_(pa.int32())),
        },
        schema=_SCHEMA,
    )


def table_to_units(table: pa.Table) -> Iterator[DecodedUnit | Status]:
    """Rows as they came, in order; frames are read-only views into the table's memory."""
    for batch in table.to_batches():
        rows = batch.drop_columns(["frames"]).to_pylist()
        for row, pixels in zip(rows, _views(batch.column("frames")), strict=True):
            payload = json.loads(row["payload"])
            if pixels is None:
                yield Status(kind=row["kind"], video=row["video_id"], payload=payload)
                continue
            yield DecodedUnit(
                video=row["video_id"],
                unit_index=payload["unit_index"],
                path=payload["path"],
                spans=tuple(WindowSpan(**span) for span in payload["spans"]),
                frames_NTHWC=pixels.reshape(row["shape"]),
            )


def _views(column: pa.LargeBinaryArray) -> Iterator[NDArray[np.uint8] | None]:
    """The bytes of each value where they lie; ``column[i].as_buffer()`` would copy them."""
    _, offsets, data = column.buffers()
    for row, valid in enumerate(column.is_valid().to_pylist()):
        if not valid:
            yield None
            continue
        start, stop = np.frombuffer(offsets, np.int64)[column.offset + row :][:2]
        pixels = np.frombuffer(data, np.uint8)[start:stop]
        pixels.flags.writeable = False
        yield pixels


def table_to_statuses(table: pa.Table) -> Iterator[Status]:
    """Rows without frames."""
    for kind, video, payload in zip(
        table["kind"].to_pylist(),
        table["video_id"].to_pylist(),
        table["payload"].to_pylist(),
        strict=True,
    ):
        yield Status(kind=kind, video=video, payload=json.loads(payload))
