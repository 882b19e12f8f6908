# pyright: standard
# (pyarrow ships no stubs: strict would report each of its names)
"""What was set aside, one row a video, with the reason: rejected data is data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from schemas.failures import FailureReason
from schemas.receipts import VideoReceipt
from schemas.tables import not_null, nullable, read_parquet, write_parquet
from schemas.versions import FormatError

__all__ = ["QUARANTINE_SCHEMA", "decode_quarantine", "encode_quarantine", "quarantine_row"]

QUARANTINE_SCHEMA = pa.schema(
    [
        not_null("video_id", pa.string(), "SHA-256 of uri, first 16 bytes, hex"),
        nullable("unit_id", pa.string(), "the unit at fault, if one video had units without fault"),
        nullable("clip_id", pa.string(), "the window at fault, if it is known"),
        not_null("uri", pa.string(), "URI relative to the source root of meta/info.json"),
        not_null("version", pa.string(), "ETag, or size and modification time"),
        not_null("stage", pa.string(), "open, decode, analyse or tokenise"),
        not_null("reason", pa.string(), "closed vocabulary: schemas/failures.py"),
        not_null("detail", pa.string(), "one line of free text"),
        not_null("attempts", pa.int32(), "starts, the last one included"),
        not_null("num_frames", pa.int64(), "frames decoded before it happened"),
        not_null("windows", pa.int64(), "windows that were found and given up with the video"),
    ]
)


def quarantine_row(receipt: VideoReceipt) -> dict[str, Any]:
    """The row of a quarantined video.

    Raises:
        ValueError: If it was not quarantined.
    """
    if receipt.failure is None:
        raise ValueError(f"video {receipt.video_id} was not quarantined")
    return {
        "video_id": receipt.video_id,
        "unit_id": None,
        "clip_id": None,
        "uri": receipt.uri,
        "version": receipt.version,
        "stage": str(receipt.failure.stage),
        "reason": str(receipt.failure.reason),
        "detail": receipt.failure.detail,
        "attempts": receipt.attempts,
        "num_frames": receipt.failure.num_frames,
        "windows": receipt.windows,
    }


def encode_quarantine(rows: Sequence[dict[str, Any]]) -> bytes:
    """``quarantine.parquet``, in order of the video id; also without any row."""
    ordered = sorted(rows, key=lambda row: row["video_id"])
    return write_parquet(pa.Table.from_pylist(ordered, schema=QUARANTINE_SCHEMA), metadata={})


def decode_quarantine(data: bytes) -> list[dict[str, Any]]:
    """The rows of ``quarantine.parquet``; ``reason`` is a `failures.FailureReason`.

    Raises:
        FormatError: If the bytes are damaged, of another version, or know another reason.
    """
    rows = read_parquet(data, schema=QUARANTINE_SCHEMA, what="quarantine table").to_pylist()
    for row in rows:
        try:
            row["reason"] = FailureReason(row["reason"])
        except ValueError as error:
            raise FormatError(f"quarantine table: {error}") from error
    return rows
