"""The rows of a unit, checked, the last few units in memory. Works behind a fork and a pickle."""

from __future__ import annotations

import functools
import hashlib
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pipelines.dataset.corpus import Corpus, Unit
from pipelines.dataset.parquet_parts import ParquetParts
from pipelines.errors import StorageError
from pipelines.sinks.webdataset import read_samples
from pipelines.storage import Store
from schemas.manifest import DataFile
from schemas.tokens import TOKEN_SCHEMA, table_to_rows
from schemas.versions import FormatError

__all__ = ["KEY_COLUMNS", "SAMPLE_COLUMNS", "UnitReader"]

KEY_COLUMNS = ("num_tokens", "grid_t", "video_id", "window_index")
"""What has to be known of every row to plan packing."""
SAMPLE_COLUMNS = (
    "clip_id", "tokens", "mask", "num_tokens", "grid_t", "grid_h", "grid_w", "source", "video_id",
    "window_index", "start_time_s", "end_time_s", "num_frames", "fps", "width", "height",
)  # fmt: skip
"""What a sample is made of."""
_OPEN_FILES = 64
_REQUIRED = frozenset(field.name for field in TOKEN_SCHEMA if not field.nullable)

Row = dict[str, Any]


class UnitReader:
    """Reads units of one corpus.

    Args:
        corpus: Which one.
        columns: Further columns of the rows.
        verify: ``pages`` compares what is read with the checksums inside a Parquet file, ``sha256``
            every file, before its first row, with the manifest, for which all of it is read once
            in every process. A tar has no checksums inside: it is always read whole.

    Raises:
        ValueError: If the corpus has no such column, or ``verify`` is neither.
    """

    def __init__(
        self, corpus: Corpus, columns: Sequence[str], *, verify: Literal["pages", "sha256"]
    ) -> None:
        if verify not in ("pages", "sha256"):
            raise ValueError(f"verify must be 'pages' or 'sha256', not {verify!r}")
        known = {*TOKEN_SCHEMA.names, *corpus.info.extra_columns}
        if unknown := sorted(set(columns) - known):
            raise ValueError(f"the corpus has no columns {unknown}; it has {sorted(known)}")
        self._corpus = corpus
        self._columns = tuple(dict.fromkeys((*SAMPLE_COLUMNS, *columns)))
        self._verify = verify
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {
            "_corpus": self._corpus, "_columns": self._columns, "_verify": self._verify
        }  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        # Connections survive neither a fork nor a pickle.
        self._pid = os.getpid()
        self._store = Store(self._corpus.store.url, self._corpus.store.config)
        self._units: OrderedDict[int, list[Row]] = OrderedDict()
        self._files = {file.path: file for file in self._corpus.files}
        self._parts = functools.lru_cache(maxsize=_OPEN_FILES)(self._open)

    def rows(self, unit: Unit, *, keep: int) -> list[Row]:
        """The rows of a unit; lists as arrays.

        Args:
            unit: Of this corpus.
            keep: Units to have in memory from now on, this one included.

        Raises:
            FormatError: If the file is damaged or not what the manifest lists; it is named.
            StorageError: If it is gone or cannot be reached.
        """
        if self._pid != os.getpid():
            self._forget()
        if unit.number in self._units:
            self._units.move_to_end(unit.number)
            return self._units[unit.number]
        while len(self._units) >= max(1, keep):
            self._units.popitem(last=False)
        read = self._parquet_rows if unit.file.format == "parquet" else self._tar_rows
        rows = read(unit)
        self._check_keys(unit, rows)
        self._units[unit.number] = rows
        return rows

    def keys(self, file: DataFile) -> list[list[Any]]:
        """The `KEY_COLUMNS` of all rows of a file; may be called by several threads.

        Raises:
            FormatError: See `rows`.
            StorageError: Likewise.
        """
        if file.format == "parquet":
            table = self._parts(file.path).read(0, file.clips, KEY_COLUMNS)
            return [table[name].to_pylist() for name in KEY_COLUMNS]
        rows = self._tar_rows(Unit(0, file, 0, file.clips))
        return [[row[name] for row in rows] for name in KEY_COLUMNS]

    def _parquet_rows(self, unit: Unit) -> list[Row]:
        parts = self._parts(unit.file.path)
        if missing := sorted(set(self._columns) - set(parts.names())):
            raise FormatError(f"{unit.file.path} lacks the columns {missing}")
        return table_to_rows(parts.read(unit.first, unit.count, self._columns))

    def _open(self, path: str) -> ParquetParts:
        fetch = functools.partial(self._fetch, path)
        parts = ParquetParts(
            self._files[path], fetch, tokenizer=self._corpus.info.tokenizer.fingerprint
        )
        if self._verify == "sha256":
            parts.check_digest()
        return parts

    def _tar_rows(self, unit: Unit) -> list[Row]:
        path = unit.file.path
        data = self._fetch(path, 0, None)
        if len(data) != unit.file.bytes:
            raise FormatError(
                f"{path} has {len(data)} bytes, the manifest says {unit.file.bytes}: it is cut off "
                "or another file"
            )
        if hashlib.sha256(data).hexdigest() != unit.file.sha256:
            raise FormatError(f"{path} has another SHA-256 than in the manifest")
        rows: list[Row] = []
        try:
            for row in read_samples(data):
                if missing := sorted(_REQUIRED - row.keys()):
                    raise FormatError(f"has no {', '.join(missing)}")
                rows.append({name: row.get(name) for name in self._columns})
        except FormatError as error:
            raise FormatError(f"{path} row {len(rows)}: {error}") from error
        if len(rows) != unit.count:
            raise FormatError(f"{path} has {len(rows)} rows, the manifest says {unit.count}")
        return rows

    def _check_keys(self, unit: Unit, rows: Sequence[Row]) -> None:
        """That the rows are those of this file: in order, and within what is listed."""
        file, previous = unit.file, ""
        for number, row in enumerate(rows, unit.first):
            clip = row["clip_id"]
            if not (previous < clip and file.min_clip_id <= clip <= file.max_clip_id):
                raise FormatError(
                    f"{file.path} row {number}: clip {clip} does not belong there: the manifest "
                    f"lists {file.min_clip_id} to {file.max_clip_id}, in order"
                )
            previous = clip

    def _fetch(self, path: str, start: int, end: int | None) -> bytes:
        try:
            if not self._store.local:
                return self._remote(path, start, end)
            with Path(self._store.full(path)).open("rb") as file:
                file.seek(start)
                return file.read() if end is None else file.read(end - start)
        except FileNotFoundError as error:
            raise StorageError(f"{self._store.full(path)} is in the manifest, but gone") from error
        except OSError as error:
            raise StorageError(f"{self._store.full(path)} cannot be read: {error}") from error

    def _remote(self, path: str, start: int, end: int | None) -> bytes:
        data = self._store.remote("cat_file", self._store.full(path), start=start, end=end)
        if end is not None and len(data) > end - start:
            # A web server that knows no ranges answers with the whole file.
            return data[start:end]
        return data
