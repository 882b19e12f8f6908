"""One data file of a corpus: its keys first, then single rows, whatever the format."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.manifest import DataFile
from schemas.tokens import TOKEN_SCHEMA, table_to_rows
from schemas.versions import FormatError, check_version
from schemas.webdataset import member_row

__all__ = ["RowFile", "RowKey", "open_row_file"]

_KEYS = ("video_id", "source", "window_index", "start_frame", "num_frames")


@dataclass(frozen=True, slots=True)
class RowKey:
    """What has to be known of a row to put it in its place.

    Attributes:
        position: Number of the row in its file.
        video_id: Its video.
        source: URI of the video.
        window_index: Position on the video's window grid.
        start_frame: First sampled frame.
        num_frames: Frames with content.
    """

    position: int
    video_id: str
    source: str
    window_index: int
    start_frame: int
    num_frames: int


class RowFile(Protocol):
    """A data file in memory."""

    def scan(self) -> Iterator[RowKey]:
        """The key of each row, in order of the file."""
        ...

    def values(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """These columns of each row, in order of the file; plain Python values."""
        ...

    def row(self, key: RowKey) -> dict[str, Any]:
        """A whole row; lists as arrays or lists."""
        ...


def open_row_file(file: DataFile, data: bytes) -> RowFile:
    """Make sense of the bytes of a data file.

    Raises:
        FormatError: If they are damaged, or of another version. Rows may still turn out to be.
    """
    kind = _ParquetFile if file.format == "parquet" else _TarFile
    return kind(file.path, data)


class _ParquetFile:
    def __init__(self, path: str, data: bytes) -> None:
        self._path = path
        try:
            self._file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            raise FormatError(f"{path} is not Parquet: {error}") from error
        metadata = self._file.schema_arrow.metadata or {}
        check_version(metadata.get(b"format_version"), what=path)
        missing = set(TOKEN_SCHEMA.names) - set(self._file.schema_arrow.names)
        if missing:
            raise FormatError(f"{path} lacks the columns {', '.join(sorted(missing))}")
        self._group: tuple[int, pa.Table] | None = None

    def scan(self) -> Iterator[RowKey]:
        for position, key in enumerate(self.values(_KEYS)):
            yield RowKey(position, *key)

    def values(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        columns = self._read(range(self._file.num_row_groups), list(names))
        yield from zip(*(columns[name].to_pylist() for name in names), strict=True)

    def row(self, key: RowKey) -> dict[str, Any]:
        group, first = 0, 0
        while first + (count := self._file.metadata.row_group(group).num_rows) <= key.position:
            group, first = group + 1, first + count
        if self._group is None or self._group[0] != group:
            self._group = (group, self._read([group], None))
        return table_to_rows(self._group[1].slice(key.position - first, 1))[0]

    def _read(self, groups: Any, columns: list[str] | None) -> pa.Table:  # noqa: ANN401
        try:
            return self._file.read_row_groups(list(groups), columns=columns, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise FormatError(f"{self._path} is damaged: {error}") from error


class _TarFile:
    def __init__(self, path: str, data: bytes) -> None:
        self._path = path
        self._data = data
        self._samples: list[dict[str, tuple[int, int]]] = []
        previous = None
        try:
            with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
                for member in tar:
                    name, _, part = member.name.partition(".")
                    if name != previous:
                        self._samples.append({})
                    previous = name
                    self._samples[-1][part] = (member.offset_data, member.size)
        except tarfile.TarError as error:
            raise FormatError(f"{path} is not a tar: {error}") from error

    def scan(self) -> Iterator[RowKey]:
        for position, key in enumerate(self.values(_KEYS)):
            yield RowKey(position, *key)

    def values(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        for position in range(len(self._samples)):
            row = self._row(position)
            yield tuple(row[name] for name in names)

    def row(self, key: RowKey) -> dict[str, Any]:
        return self._row(key.position)

    def _row(self, position: int) -> dict[str, Any]:
        members = {
            part: self._data[start : start + size]
            for part, (start, size) in self._samples[position].items()
        }
        row = member_row(members)
        missing = {field.name for field in TOKEN_SCHEMA if not field.nullable} - row.keys()
        if missing:
            raise FormatError(f"{self._path}: a sample lacks {', '.join(sorted(missing))}")
        return row
