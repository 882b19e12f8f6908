"""The listing of a source in the order of its URIs, in little memory, however it came.

Buckets list in the order of their keys, folders nearly so. What comes in order is written behind
one another into one run, what does not begins another, and reading merges the runs. A listing of
less than a run's buffer never touches the disk.
"""

from __future__ import annotations

import heapq
import itertools
import marshal
import tempfile
from collections.abc import Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from pipelines.errors import PipelineError
from pipelines.sources import SourceObject

__all__ = ["ListedObject", "SortedListing"]

ListedObject = tuple[str, int, str, str | None]
"""URI, bytes, version, further manifest columns as JSON."""

_BUFFER = 1 << 18
_BATCH = 1 << 14
_MARSHAL = 2
"""Without references between objects, which take time and find nothing here."""
_SIZE = 8
"""Bytes in front of each batch in a run: how many are its own."""
_uri = itemgetter(0)


class SortedListing:
    """Takes a listing in, and gives it out sorted, as often as it is asked. A context manager.

    Runs lie in a folder of their own below the system's temporary one (``TMPDIR``): some 100 bytes
    per object of a listing that is larger than ``buffer``.

    Args:
        objects: Read to the end at once.
        extra: Makes text of the further columns of an object.
        buffer: Objects that are held and sorted at a time.
    """

    def __init__(
        self,
        objects: Iterable[SourceObject],
        *,
        extra: Any,  # noqa: ANN401  a function of JSON values
        buffer: int = _BUFFER,
    ) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._held: list[ListedObject] = []
        self._runs: list[Path] = []
        self._run: BinaryIO | None = None
        self._last = ""
        rows = (
            (uri, size, version, extra(further) if further else None)
            for uri, size, version, further in objects
        )
        try:
            while chunk := list(itertools.islice(rows, buffer)):
                chunk.sort(key=_uri)
                if not self._runs and len(chunk) < buffer:
                    self._held = chunk
                else:
                    self._spill(chunk)
            self._close_run()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[ListedObject]:
        """All objects by URI.

        Raises:
            PipelineError: If a URI was listed twice.
        """
        runs = [self._read(path) for path in self._runs]
        merged = heapq.merge(*runs, key=_uri) if len(runs) > 1 else runs[0] if runs else self._held
        before = None
        for row in merged:
            if row[0] == before:
                raise PipelineError(f"the input lists {before} more than once")
            before = row[0]
            yield row

    def close(self) -> None:
        """Forget everything."""
        self._close_run()
        self._held, self._runs = [], []
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _spill(self, chunk: list[ListedObject]) -> None:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="infotok-listing-")
        if self._run is None or chunk[0][0] <= self._last:
            self._close_run()
            path = Path(self._folder.name, f"{len(self._runs):06d}.run")
            self._run = path.open("wb")
            self._runs.append(path)
        for start in range(0, len(chunk), _BATCH):
            # Nobody else writes or reads it, and by Arrow's columns it takes seven times as long.
            data = marshal.dumps(chunk[start : start + _BATCH], _MARSHAL)
            self._run.write(len(data).to_bytes(_SIZE) + data)
        self._last = chunk[-1][0]

    def _close_run(self) -> None:
        if self._run is not None:
            self._run.close()
            self._run = None

    def _read(self, path: Path) -> Iterator[ListedObject]:
        with path.open("rb") as file:
            while size := file.read(_SIZE):
                yield from marshal.loads(file.read(int.from_bytes(size)))
