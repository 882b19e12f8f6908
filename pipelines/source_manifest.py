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
from collections.abc import Callable, Mapping, Sequence
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

_Types = Mapping[str, pa.DataType]


def read_manifest(
    data: bytes, *, name: str, uri_column: str, types: Mapping[str, str] | None = None
) -> tuple[list[str], pa.Table]:
    """The URIs, as they are written, and the other columns, of the same length.

    Args:
        data: The file.
        name: Its path; the suffix decides how it is read.
        uri_column: Which column holds the URIs.
        types: Arrow's names of the types that some of the other columns shall have.

    Raises:
        PipelineError: If it cannot be read, has no such column or one twice, no rows, a row without
            a URI, or a value that is not of the type asked for.
    """
    try:
        asked = {column: pa.type_for_alias(kind) for column, kind in (types or {}).items()}
        table = _read(data, name, uri_column, asked)
        if uri_column not in table.column_names:
            raise PipelineError(
                f"manifest {name} has no column {uri_column!r} (it has "
                f"{', '.join(table.column_names)}); name another with --set source.uri_column=…"
            )
        uris: list[str | None] = _utf8(table[uri_column], uri_column).to_pylist()
        extra = _plain(table.drop_columns([uri_column]))
        # What was not read so already: Parquet has types of its own.
        fields = [pa.field(f.name, asked.get(f.name, f.type)) for f in extra.schema]
        extra = extra.cast(pa.schema(fields))
    except _ColumnError as error:
        raise PipelineError(f"manifest {name}: {error}") from error
    except UnicodeDecodeError as error:
        raise PipelineError(f"manifest {name} is not UTF-8 text: {error}") from error
    except pa.ArrowException as error:
        told = "; ".join(f"{column} has to be {kind}" for column, kind in (types or {}).items())
        why = f"{error} ({told})" if told else str(error)
        raise PipelineError(f"manifest {name} cannot be read: {why}") from error
    if not uris:
        raise PipelineError(f"manifest {name} has no rows")
    found = [uri for uri in uris if uri]
    if len(found) < len(uris):
        row = next(index for index, uri in enumerate(uris) if not uri)
        raise PipelineError(f"manifest {name}: row {row + 1} has no {uri_column}")
    return found, extra


class _ColumnError(Exception):
    """What is wrong with a column, without the name of the manifest."""


def _read(data: bytes, name: str, uri_column: str, asked: _Types) -> pa.Table:
    suffix = name.lower()
    if suffix.endswith(".parquet"):
        # Not `read_table`, which fails on what comes twice.
        return _distinct(pq.ParquetFile(pa.BufferReader(data)).read())
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise PipelineError(f"manifest {name} is not UTF-8 text: it begins like UTF-16")
    read = _read_csv if suffix.endswith(".csv") else _read_json
    return read(data, uri_column, {**asked, uri_column: pa.string()})


def _distinct(table: pa.Table) -> pa.Table:
    twice = [column for column, count in Counter(table.column_names).items() if count > 1]
    if twice:
        raise _ColumnError(f"column {twice[0]!r} comes twice")
    return table


def _read_csv(data: bytes, uri_column: str, asked: _Types) -> pa.Table:
    table = _distinct(_csv(data, asked))
    kinds = {
        field.name: field.type
        for field in table.schema
        if field.name != uri_column and (pa.types.is_temporal(field.type) or _is_number(field.type))
    }
    # Where a number is missing, text is missing too, and not empty.
    as_text = dict.fromkeys(kinds, pa.string())
    text = _csv(data, as_text, empty_is_null=True) if kinds else table
    for column, kind in kinds.items():
        if _is_number(kind) and not _changes(text[column], kind):
            continue
        table = _replaced(table, column, text[column], asked)
    return table


def _csv(data: bytes, types: _Types, *, empty_is_null: bool = False) -> pa.Table:
    options = pacsv.ConvertOptions(column_types=types, strings_can_be_null=empty_is_null)
    return pacsv.read_csv(pa.BufferReader(data), convert_options=options)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _changes(text: pa.ChunkedArray, kind: pa.DataType) -> bool:
    """Whether numbers of this type are not those that are written: ids most of the time."""
    pattern = _PADDED_OR_LONG if pa.types.is_floating(kind) else _PADDED
    return any(value is not None and pattern.match(value) for value in text.to_pylist())


def _replaced(
    table: pa.Table, column: str, text: pa.Array | pa.ChunkedArray, asked: _Types
) -> pa.Table:
    kind = asked.get(column, pa.string())
    if kind != pa.string():
        raise _ColumnError(f"column {column!r} has to be {kind}, which does not keep its digits")
    return table.set_column(table.column_names.index(column), column, text)


def _read_json(data: bytes, uri_column: str, asked: _Types) -> pa.Table:
    # Numbers under a column of text are no mistake: too large ones are written so.
    types = {
        column: kind
        for column, kind in asked.items()
        if column == uri_column or not pa.types.is_string(kind)
    }
    table = _json(data, types)
    # Text that looks like a date is taken for one: read that once more, as text.
    dates = [field.name for field in table.schema if pa.types.is_temporal(field.type)]
    table = _json(data, {**types, **dict.fromkeys(dates, pa.string())}) if dates else table
    to_be_text = {column for column, kind in asked.items() if pa.types.is_string(kind)}
    kinds = {
        field.name: field.type
        for field in table.schema
        if pa.types.is_floating(field.type)
        or (field.name in to_be_text and pa.types.is_integer(field.type))
    }
    # A line at a time is slow, and integers alone need no second look.
    rows = [json.loads(line) for line in data.splitlines() if line.strip()] if kinds else []
    for column in kinds:
        values = [row.get(column) for row in rows]
        large = any(isinstance(value, int) and abs(value) >= _FLOAT_INTEGERS for value in values)
        if large or column in to_be_text:
            table = _replaced(table, column, _text(values, json.dumps), asked)
    return table


def _json(data: bytes, types: _Types) -> pa.Table:
    schema = pa.schema(list(types.items()))
    table = pajson.read_json(
        pa.BufferReader(data), parse_options=pajson.ParseOptions(explicit_schema=schema)
    )
    # A column of the explicit schema is made up if the file has none.
    empty = [n for n in types if table[n].null_count == table.num_rows and _absent(data, n)]
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
        raise _ColumnError(f"column {name!r} is not UTF-8 text") from error
