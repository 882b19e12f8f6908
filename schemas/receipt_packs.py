# pyright: standard
# (pyarrow ships no stubs: strict would report each of its names)
"""The receipts of a block of videos in one object: what a finished block leaves behind.

A pack holds the bytes of the receipts as they were, in plan order, and beside them the little that
is asked for without parsing them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
from pydantic import Field

from schemas.documents import Document
from schemas.receipts import VideoReceipt
from schemas.tables import not_null, nullable, read_parquet, write_parquet

__all__ = ["PACK_SCHEMA", "PackedReceipt", "ReopenedVideos", "decode_pack", "encode_pack"]

PACK_SCHEMA = pa.schema(
    [
        not_null("video_id", pa.string(), "SHA-256 of uri, first 16 bytes, hex"),
        nullable("reason", pa.string(), "why it was set aside; null if it was analysed"),
        not_null("units", pa.int32(), "stored units"),
        not_null("receipt", pa.binary(), "the receipt: JSON, byte for byte as it was published"),
    ]
)


class PackedReceipt(NamedTuple):
    """A row of a pack; its fields are the columns of `PACK_SCHEMA`."""

    video_id: str
    reason: str | None
    units: int
    receipt: bytes

    @classmethod
    def of(cls, receipt: VideoReceipt) -> PackedReceipt:
        """The row of a receipt."""
        reason = None if receipt.failure is None else str(receipt.failure.reason)
        return cls(receipt.video_id, reason, len(receipt.units), receipt.published())


class ReopenedVideos(Document):
    """Videos of a pack that are to run again: their receipts in it do not count any more.

    Attributes:
        videos: Their ids, in order.
    """

    videos: tuple[str, ...] = Field(min_length=1)


def encode_pack(rows: Sequence[PackedReceipt]) -> bytes:
    """A pack, in the order of ``rows``."""
    columns = dict(zip(PACK_SCHEMA.names, zip(*rows, strict=True), strict=True))
    return write_parquet(pa.table(columns, schema=PACK_SCHEMA), metadata={})


def decode_pack(data: bytes, *, what: str = "receipt pack") -> list[PackedReceipt]:
    """The rows of a pack, receipts unparsed.

    Raises:
        FormatError: If the bytes are damaged or of another version.
    """
    table = read_parquet(data, schema=PACK_SCHEMA, what=what)
    columns = (table.column(name).to_pylist() for name in PACK_SCHEMA.names)
    return [PackedReceipt(*row) for row in zip(*columns, strict=True)]
