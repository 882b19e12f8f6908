"""Reading a manifest: a CSV, JSONL or Parquet file with a column of URIs; the others ride along.

Types are what the file says: Parquet has them, JSON has numbers, booleans and text, and of a CSV
columns of numbers or booleans alone are taken for that. Everything else becomes text, letter by
letter: a date stays as it was written, nested values become JSON. So do whole numbers that no type
of a column would keep as they are: with zeros in front, or too large.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq

from pipelines.errors import PipelineError

__all__ = ["MANIFEST_SUFFIXES", "read_manifest"]

MANIFEST_SUFFIXES = (".csv", ".jsonl", ".ndjson", ".parquet")

_FLOAT_INTEGERS = 2**53
"""Beyond, double precision has not every whole number."""
_PADDED = re.compile(r"[+-]?0[0-9]")
_PADDED_OR_LONG = re.compile(r"[+-]?(?:0[0-9]|[0-9]{16,}$)")


def read_manifest(data: bytes, *, name: str, uri_column: str) -> tuple[list[str], pa.Table]:
    """The URIs, as they are written, and the other columns, of the same length.

    Args:
        data: The file.
        name: Its path; the suffix decides how it is read.
        uri_column: Which column holds the URIs.

    Raises:
        PipelineError: If it cannot be read, has no such column or one twice, no rows, or a row
            without a URI.
    """
    try:
        table = _read(data, name, uri_column)
        if uri_column not in table.column_names:
            raise PipelineError(
                f"manifest {name} has no column {uri_column!r} (it has "
                f"{', '.join(table.column_names)}); name another with --set source.uri_column=…"
            )
        uris: list[str | None] = _utf8(table[uri_column], uri_column).to_pylist()
        extra = _plain(table.drop_columns([uri_column]))
    except _NotTextError as error:
        raise PipelineError(
            f"manifest {name}: column {error.column!r} is not UTF-8 text"
        ) from error
    except UnicodeDecodeError as error:
        raise PipelineError(f"manifest {name} is not UTF-8 text: {error}") from error
    except pa.ArrowException as error:
        raise PipelineError(f"manifest {name} cannot be read: {error}") from error
    if not uris:
        raise PipelineError(f"manifest {name} has no rows")
    found = [uri for uri in uris if uri]
    if len(found) < len(uris):
        row = next(index for index, uri in enumerate(uris) if not uri)
        raise PipelineError(f"manifest {name}: row {row + 1} has no {uri_column}")
    return found, extra


class _NotTextError(Exception):
    def __init__(self, column: str) -> None:
        super().__init__(column)
        self.column = column


def _read(data: bytes, name: str, uri_column: str) -> pa.Table:
    suffix = name.lower()
    if suffix.endswith(".parquet"):
        # Not `read_table`, which fails on what comes twice.
        return _distinct(pq.ParquetFile(pa.BufferReader(data)).read(), name)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise PipelineError(f"manifest {name} is not UTF-8 text: it begins like UTF-16")
    if suffix.endswith(".csv"):
        return _read_csv(data, name, uri_column)
    return _read_json(data, name, uri_column)


def _distinct(table: pa.Table, name: str) -> pa.Table:
    twice = [column for column, count in Counter(table.column_names).items() if count > 1]
    if twice:
        raise PipelineError(f"manifest {name}: column {twice[0]!r} comes twice")
    return table


def _read_csv(data: bytes, name: str, uri_column: str) -> pa.Table:
    table = _distinct(_csv_with_text(data, [uri_column]), name)
    kinds = {
        field.name: field.type
        for field in table.schema
        if pa.types.is_temporal(field.type) or _is_number(field.type)
    }
    # Where a number is missing, text is missing too, and not empty.
    text = _csv_with_text(data, list(kinds), empty_is_null=True) if kinds else table
    for column, kind in kinds.items():
        if pa.types.is_temporal(kind) or _changes(text[column], kind):
            table = table.set_column(table.column_names.index(column), column, text[column])
    return table


def _csv_with_text(data: bytes, columns: Sequence[str], *, empty_is_null: bool = False) -> pa.Table:
    options = pacsv.ConvertOptions(
        column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=empty_is_null
    )
    return pacsv.read_csv(pa.BufferReader(data), convert_options=options)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _changes(text: pa.ChunkedArray, kind: pa.DataType) -> bool:
    """Whether numbers of this type are not those that are written: ids most of the time."""
    pattern = _PADDED_OR_LONG if pa.types.is_floating(kind) else _PADDED
    return any(value is not None and pattern.match(value) for value in text.to_pylist())


def _read_json(data: bytes, name: str, uri_column: str) -> pa.Table:
    table = _json_with_text(data, [uri_column])
    # Text that looks like a date is taken for one: read that once more, as text.
    dates = [field.name for field in table.schema if pa.types.is_temporal(field.type)]
    table = _json_with_text(data, [uri_column, *dates]) if dates else table
    floats = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    rows = [json.loads(line) for line in data.splitlines() if line.strip()] if floats else []
    for column in floats:
        values = [row.get(column) for row in rows]
        if any(isinstance(value, int) and abs(value) >= _FLOAT_INTEGERS for value in values):
            text = _text(values, json.dumps)
            table = table.set_column(table.column_names.index(column), column, text)
    return _distinct(table, name)


def _json_with_text(data: bytes, columns: Sequence[str]) -> pa.Table:
    schema = pa.schema([(column, pa.string()) for column in columns])
    table = pajson.read_json(
        pa.BufferReader(data), parse_options=pajson.ParseOptions(explicit_schema=schema)
    )
    # A column of the explicit schema is made up if the file has none.
    empty = [n for n in columns if table[n].null_count == table.num_rows and _absent(data, n)]
    return table.drop_columns(empty)


def _absent(data: bytes, column: str) -> bool:
    return not any(column in json.loads(line) for line in data.splitlines() if line.strip())


def _plain(table: pa.Table) -> pa.Table:
    """Numbers, booleans and strings as they are, the rest as text."""
    for index, field in enumerate(table.schema):
        kind = field.type
        if pa.types.is_nested(kind):
            column = _text(table[index].to_pylist(), lambda value: json.dumps(value, default=str))
        elif _is_number(kind) or pa.types.is_boolean(kind):
            continue
        else:
            column = _utf8(table[index], field.name)
        table = table.set_column(index, pa.field(field.name, pa.string()), column)
    return table


def _text(values: Sequence[Any], write: Callable[[Any], str]) -> pa.Array:
    return pa.array([None if value is None else write(value) for value in values], pa.string())


def _utf8(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid as error:
        raise _NotTextError(name) from error
