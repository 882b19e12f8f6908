"""The heads of a corpus, and the units in which its rows are read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from infotok_core.numbers_in_range import whole_number
from pipelines.config import StorageConfig
from pipelines.corpus_reader import read_manifest
from pipelines.errors import IncompleteError
from pipelines.storage import Store
from schemas.ids import digest
from schemas.info import CorpusInfo
from schemas.layout import INFO_PATH
from schemas.manifest import DataFile

__all__ = ["Corpus", "Unit", "open_corpus"]

_UNIT_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Unit:
    """Rows that are read together: a row group of a Parquet file, or a whole tar.

    Attributes:
        number: In order of the corpus.
        file: Which file.
        first: Its first row there.
        count: How many, at least one.
    """

    number: int
    file: DataFile
    first: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """What is known without opening a data file.

    Attributes:
        store: Where it is.
        info: Its head.
        files: Those of one format, which hold all rows.
        units: Of all files.
        identity: Digest of the bytes of all files and of the cut into units.
    """

    store: Store
    info: CorpusInfo
    files: tuple[DataFile, ...]
    units: tuple[Unit, ...]
    identity: str


def open_corpus(
    url: str,
    *,
    format: Literal["parquet", "webdataset"] | None = None,
    unit_rows: int | None = None,
    storage: StorageConfig | None = None,
) -> Corpus:
    """Read manifest and head.

    Args:
        url: A folder or any URL that fsspec knows.
        format: None takes Parquet where there is Parquet: it is read in parts.
        unit_rows: Rows of a Parquet file to read together; None: those of its row groups.
        storage: How to reach the store.

    Raises:
        IncompleteError: If there is no corpus, or none in this format.
        FormatError: If a head is damaged or of another version.
        ValueError: If ``unit_rows`` is no whole number, or less than one.
    """
    if unit_rows is not None and (unit_rows := whole_number("unit_rows", unit_rows)) < 1:
        raise ValueError(f"unit_rows {unit_rows} must be at least 1")
    store = Store(url, storage)
    listed = read_manifest(store)
    formats = {file.format for file in listed}
    wanted = format or ("parquet" if "parquet" in formats else "webdataset")
    files = sorted(
        (file for file in listed if file.format == wanted), key=lambda f: (f.shard, f.path)
    )
    if not files:
        has = " and ".join(sorted(formats)) or "no rows at all"
        raise IncompleteError(f"{store.url} has no {wanted} files: it has {has}")
    rows = unit_rows or _row_group_rows(store)
    units = tuple(_units(files, rows))
    return Corpus(
        store=store,
        info=CorpusInfo.from_bytes(store.read(INFO_PATH)),
        files=tuple(files),
        units=units,
        identity=digest([[u.file.path, u.file.sha256, u.first, u.count] for u in units]),
    )


def _units(files: Iterable[DataFile], rows: int) -> Iterator[Unit]:
    number = 0
    for file in files:
        step = rows if file.format == "parquet" else file.clips
        for first in range(0, file.clips, step):
            yield Unit(number, file, first, min(step, file.clips - first))
            number += 1


def _row_group_rows(store: Store) -> int:
    """As the corpus was written. Any number would be right; this one reads nothing twice."""
    try:
        rows = json.loads(store.read("meta/config.json"))["config"]["output"]["row_group_rows"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return _UNIT_ROWS
    return rows if isinstance(rows, int) and rows > 0 else _UNIT_ROWS
