"""Parquet bytes that are the same wherever they are written, and readers that say what is wrong."""

# pyright: standard
# (pyarrow ships no stubs: strict would report each of its names)
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.versions import FORMAT_VERSION, FormatError, check_version

__all__ = ["ZSTD_LEVEL", "not_null", "nullable", "read_parquet", "write_parquet"]

ZSTD_LEVEL = 3
"""Level of every Parquet file; higher ones gain less than 1 % on token ids."""


def not_null(name: str, kind: pa.DataType, meaning: str = "") -> pa.Field:
    """A required column, with its meaning in the field metadata."""
    return pa.field(name, kind, nullable=False, metadata={"meaning": meaning} if meaning else None)


def nullable(name: str, kind: pa.DataType, meaning: str = "") -> pa.Field:
    """A column that may be null, with its meaning in the field metadata."""
    return pa.field(name, kind, metadata={"meaning": meaning} if meaning else None)


def write_parquet(
    table: pa.Table,
    *,
    metadata: Mapping[str, str],
    byte_stream_split: Sequence[str] = (),
    dictionary: Sequence[str] = (),
    row_group_rows: int | None = None,
) -> bytes:
    """Write a table as Parquet: zstd, page index, format version in the file metadata.

    Args:
        table: Its schema is kept, with field metadata.
        metadata: More text for the file metadata, beside ``format_version``.
        byte_stream_split: Leaf columns (``tokens.list.element``) in BYTE_STREAM_SPLIT, the only
            encoding measured not to double 16-bit ids (Parquet stores uint16 as INT32).
        dictionary: Leaf columns in dictionary encoding.
        row_group_rows: Rows of a row group; None for one group.

    Raises:
        ValueError: If a required column holds a null.
    """
    for field in table.schema:
        if not field.nullable and table.column(field.name).null_count:
            raise ValueError(f"column {field.name} is required but holds a null")
    versioned = {"format_version": str(FORMAT_VERSION), **metadata}
    sink = pa.BufferOutputStream()
    options: dict[str, Any] = {
        "row_group_size": row_group_rows or max(table.num_rows, 1),
        "compression": "zstd",
        "compression_level": ZSTD_LEVEL,
        "use_dictionary": list(dictionary),
        "use_byte_stream_split": list(byte_stream_split),
        "write_page_index": True,
        # Without it a flipped byte inside a page can decompress to other tokens, unnoticed.
        "write_page_checksum": True,
    }
    pq.write_table(table.replace_schema_metadata(versioned), sink, **options)
    return sink.getvalue().to_pybytes()


def read_parquet(data: bytes, *, schema: pa.Schema, what: str) -> pa.Table:
    """Read what `write_parquet` wrote.

    Args:
        data: A whole file.
        schema: Columns that must be there with these types; further ones are kept.
        what: Name for the messages.

    Raises:
        FormatError: If the bytes are damaged, of another version, or lack a column.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        metadata = file.schema_arrow.metadata or {}
        check_version(metadata.get(b"format_version"), what=what)
        table = file.read(use_threads=False)
    except FormatError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FormatError(f"{what} cannot be read ({len(data)} bytes): {error}") from error
    for field in schema:
        index = table.schema.get_field_index(field.name)
        if index < 0 or table.schema.field(index).type != field.type:
            found = "is missing" if index < 0 else f"is {table.schema.field(index).type}"
            raise FormatError(f"{what}: column {field.name} must be {field.type}, but {found}")
    return table
