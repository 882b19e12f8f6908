# pyright: standard
# (pyarrow ships no stubs: strict would report each of its names)
"""Rows of a Parquet file in any store, of which only the footer and the asked part are fetched.

Pages are compared with their checksums, the size and the number of rows with the manifest, the
columns with their types. What a part cannot tell is whether the whole file has the SHA-256 of the
manifest: `ParquetParts.check_digest` reads all of it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.manifest import DataFile
from schemas.tokens import TOKEN_SCHEMA
from schemas.versions import FormatError, check_version

__all__ = ["ParquetParts"]

_TAIL_BYTES = 1 << 16
_HASHED_BYTES = 1 << 23
_MAGIC = b"PAR1"

Fetch = Callable[[int, int], bytes]
"""Bytes [start, end) of the file."""


class _Span(io.RawIOBase):
    """A file of which one span is there; reading elsewhere is an error."""

    def __init__(self, data: bytes, start: int, size: int) -> None:
        self._data = memoryview(data)
        self._start = start
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  any writable buffer
        first = self._at - self._start
        if first < 0 or first > len(self._data):
            raise OSError(f"byte {self._at} lies outside of the part it should be in")
        part = self._data[first : first + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


class ParquetParts:
    """A Parquet file of a corpus, opened by its footer.

    Args:
        file: Its entry in the manifest.
        fetch: How to get at its bytes.
        tokenizer: Fingerprint that the file must name.

    Raises:
        FormatError: If it is not what the manifest says, damaged, or of another version.
    """

    def __init__(self, file: DataFile, fetch: Fetch, *, tokenizer: str) -> None:
        self.file = file
        self._fetch = fetch
        tail = self._bytes(max(0, file.bytes - _TAIL_BYTES), file.bytes)
        # A file that is longer than listed does not end here either.
        if tail[-4:] != _MAGIC:
            raise FormatError(f"{file.path} does not end as Parquet after {file.bytes} bytes")
        need = int.from_bytes(tail[-8:-4], "little") + 8
        if need > file.bytes:
            raise FormatError(f"{file.path}: its footer would be longer than the file")
        if need > len(tail):
            tail = self._bytes(file.bytes - need, file.bytes)
        opened = self._open(tail, file.bytes - len(tail), None)
        self._metadata = opened.metadata
        try:
            self._check(opened.schema_arrow, tokenizer)
            leaves = opened.schema
            paths = [leaves.column(index).path for index in range(len(leaves))]
        except UnicodeDecodeError as error:
            raise FormatError(f"{file.path}: its footer is damaged: {error}") from error
        self._tops = [path.split(".", 1)[0] for path in paths]
        self._groups = [
            self._metadata.row_group(group) for group in range(self._metadata.num_row_groups)
        ]

    def names(self) -> list[str]:
        """Its columns."""
        return list(dict.fromkeys(self._tops))

    def read(self, first: int, count: int, columns: Sequence[str]) -> pa.Table:
        """Rows ``first`` .. ``first + count - 1``.

        Raises:
            FormatError: If the row groups they lie in are damaged.
        """
        groups, before, start = [], 0, 0
        for group, described in enumerate(self._groups):
            rows = described.num_rows
            if start < first + count and first < start + rows:
                before = before if groups else start
                groups.append(group)
            start += rows
        begin, end = self._span(groups, columns)
        parts = self._open(self._bytes(begin, end), begin, self._metadata)
        try:
            table = parts.read_row_groups(groups, columns=list(columns), use_threads=False)
            table.validate(full=True)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise FormatError(
                f"{self.file.path}, rows {first} to {first + count - 1}: damaged: {error}"
            ) from error
        return table.slice(first - before, count)

    def check_digest(self) -> None:
        """Read the whole file.

        Raises:
            FormatError: If its SHA-256 is not that of the manifest.
        """
        sha256 = hashlib.sha256()
        for start in range(0, self.file.bytes, _HASHED_BYTES):
            sha256.update(self._bytes(start, min(start + _HASHED_BYTES, self.file.bytes)))
        if sha256.hexdigest() != self.file.sha256:
            raise FormatError(f"{self.file.path} has another SHA-256 than in the manifest")

    def _bytes(self, start: int, end: int) -> bytes:
        data = self._fetch(start, end)
        if len(data) != end - start:
            raise FormatError(
                f"{self.file.path} is cut off: the manifest says {self.file.bytes} bytes, "
                f"it ends before byte {end}"
            )
        return data

    def _open(self, data: bytes, start: int, metadata: pq.FileMetaData | None) -> pq.ParquetFile:
        source = pa.PythonFile(_Span(data, start, self.file.bytes), mode="r")
        try:
            return pq.ParquetFile(
                source, metadata=metadata, page_checksum_verification=True, pre_buffer=False
            )
        except (pa.ArrowException, OSError, ValueError) as error:
            raise FormatError(f"{self.file.path} is not Parquet: {error}") from error

    def _check(self, schema: pa.Schema, tokenizer: str) -> None:
        path = self.file.path
        stored = schema.metadata or {}
        check_version(stored.get(b"format_version"), what=path)
        found = stored.get(b"tokenizer", b"").decode("utf-8", "replace")
        if found != tokenizer:
            raise FormatError(
                f"{path} is by tokenizer {found[:16]}…, the corpus by {tokenizer[:16]}…"
            )
        for field in TOKEN_SCHEMA:
            index = schema.get_field_index(field.name)
            if index < 0 or schema.field(index).type != field.type:
                what = "missing" if index < 0 else f"of type {schema.field(index).type}"
                raise FormatError(f"{path}: column {field.name} is {what}, not {field.type}")
        if self._metadata.num_rows != self.file.clips:
            raise FormatError(
                f"{path} has {self._metadata.num_rows} rows, the manifest says {self.file.clips}"
            )

    def _span(self, groups: Sequence[int], columns: Sequence[str]) -> tuple[int, int]:
        wanted = [index for index, name in enumerate(self._tops) if name in columns]
        begin, end = self.file.bytes, 0
        for group in groups:
            for index in wanted:
                chunk = self._groups[group].column(index)
                at = chunk.dictionary_page_offset or chunk.data_page_offset
                begin = min(begin, at, chunk.data_page_offset)
                end = max(end, at + chunk.total_compressed_size)
        if not 0 <= begin <= end <= self.file.bytes:
            raise FormatError(f"{self.file.path}: its footer points outside of the file")
        return begin, end
