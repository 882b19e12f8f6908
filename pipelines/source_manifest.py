"""Reading a manifest: a CSV, JSONL or Parquet file with a column of URIs; the others ride along.

Types are what the file says: Parquet has them, JSON has numbers, booleans and text, and of a CSV
columns of numbers or booleans alone are taken for that. Everything else becomes text, letter by
letter: a date stays as it was written, nested values become JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq

from pipelines.errors import PipelineError

__all__ = ["MANIFEST_SUFFIXES", "read_manifest"]

MANIFEST_SUFFIXES = (".csv", ".jsonl", ".ndjson", ".parquet")


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
        PipelineError: If it cannot be read, has no such column, a row has no URI, or a value is not
            of the type asked for.
    """
    try:
        asked = {column: pa.type_for_alias(kind) for column, kind in (types or {}).items()}
        table = _read(data, name, uri_column, asked)
        if uri_column not in table.column_names:
            raise PipelineError(
                f"manifest {name} has no column {uri_column!r} (it has "
                f"{', '.join(table.column_names)}); name another with --set source.uri_column=…"
            )
        uris: list[str | None] = table[uri_column].cast(pa.string()).to_pylist()
        extra = _plain(table.drop_columns([uri_column]))
        # A CSV and JSON were read so; Parquet has types of its own.
        fields = [pa.field(f.name, asked.get(f.name, f.type)) for f in extra.schema]
        extra = extra.cast(pa.schema(fields))
    except pa.ArrowException as error:
        told = "; ".join(f"{column} has to be {kind}" for column, kind in (types or {}).items())
        why = f"{error} ({told})" if told else str(error)
        raise PipelineError(f"manifest {name} cannot be read: {why}") from error
    found = [uri for uri in uris if uri]
    if len(found) < len(uris):
        row = next(index for index, uri in enumerate(uris) if not uri)
        raise PipelineError(f"manifest {name}: row {row + 1} has no {uri_column}")
    return found, extra


def _read(data: bytes, name: str, uri_column: str, asked: dict[str, pa.DataType]) -> pa.Table:
    suffix = name.lower()
    if suffix.endswith(".parquet"):
        return pq.read_table(pa.BufferReader(data))
    read = _read_csv if suffix.endswith(".csv") else _read_json
    types = {**asked, uri_column: pa.string()}
    table = read(data, types)
    # Both readers take text that looks like a date for one: read those once more, as text.
    dates = {field.name: pa.string() for field in table.schema if pa.types.is_temporal(field.type)}
    return read(data, {**types, **dates}) if dates else table


def _read_csv(data: bytes, types: dict[str, pa.DataType]) -> pa.Table:
    options = pacsv.ConvertOptions(column_types=types)
    return pacsv.read_csv(pa.BufferReader(data), convert_options=options)


def _read_json(data: bytes, types: dict[str, pa.DataType]) -> pa.Table:
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
            column = _text(table[index], lambda value: json.dumps(value, default=str))
        elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
            continue
        else:
            column = table[index].cast(pa.string())
        table = table.set_column(index, pa.field(field.name, pa.string()), column)
    return table


def _text(column: pa.ChunkedArray, write: Callable[[Any], str]) -> pa.Array:
    values = [None if value is None else write(value) for value in column.to_pylist()]
    return pa.array(values, pa.string())
