"""A set of video ids in little memory, asked one by one or by the column."""

from __future__ import annotations

import itertools
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["IdSet"]

_CHUNK = 1 << 16
_DIGITS = 32
_NIBBLES = np.full(256, 255, np.uint8)
_NIBBLES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


class IdSet:
    """Video ids at 16 bytes each: ten million of them are 160 MB, as strings they would be 1 GB."""

    def __init__(self, ids: Iterable[str] = ()) -> None:
        iterator = iter(ids)
        chunks: list[bytes] = []
        while chunk := list(itertools.islice(iterator, _CHUNK)):
            chunks.append(bytes.fromhex("".join(chunk)))
        self._fill(np.frombuffer(b"".join(chunks), np.uint8).reshape(-1, 16))

    @classmethod
    def of_columns(cls, columns: Iterable[pa.ChunkedArray]) -> IdSet:
        """The ids of columns of text."""
        result = cls()
        parts = [_packed(column) for column in columns]
        result._fill(np.concatenate(parts) if parts else np.empty((0, 16), np.uint8))
        return result

    def _fill(self, packed_N16: NDArray[np.uint8]) -> None:
        high, low = _halves(packed_N16)
        order = np.lexsort((low, high))
        # Sorted. Arrays of the standard library: `bisect` asks them ten times faster than NumPy's.
        self._high = array("Q", high[order].tobytes())
        self._low = array("Q", low[order].tobytes())

    def __len__(self) -> int:
        return len(self._high)

    def lowest(self, count: int) -> IdSet:
        """The first ``count`` ids in their order.

        Ids are hashes, so this is a random sample; it depends on the set alone, and a larger one
        holds every smaller one.
        """
        part = IdSet()
        part._high, part._low = self._high[:count], self._low[:count]
        return part

    def __contains__(self, video: str) -> bool:
        high, low = int(video[:16], 16), int(video[16:], 16)
        index = bisect_left(self._high, high)
        while index < len(self._high) and self._high[index] == high:
            if self._low[index] == low:
                return True
            index += 1
        return False

    def among(self, column: pa.ChunkedArray) -> NDArray[np.bool_]:
        """Which ids of a column of text are in the set."""
        high, low = _halves(_packed(column))
        found = np.zeros(len(high), bool)
        if not len(self):
            return found
        highs, lows = (np.frombuffer(part, np.uint64) for part in (self._high, self._low))
        places = np.searchsorted(highs, high)
        # More than one round only where the first halves of two ids are the same.
        while True:
            inside = places < len(highs)
            places = np.minimum(places, len(highs) - 1)
            same = inside & (highs[places] == high)
            if not same.any():
                return found
            found |= same & (lows[places] == low)
            places = places + 1


def _halves(packed_N16: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    halves = np.ascontiguousarray(packed_N16).view(">u8").astype(np.uint64).reshape(-1, 2)
    return halves[:, 0], halves[:, 1]


def _packed(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    return np.concatenate([np.empty((0, 16), np.uint8), *_chunks(column)])


def _chunks(column: pa.ChunkedArray) -> Iterator[NDArray[np.uint8]]:
    for chunk in column.chunks:
        yield _from_hex(chunk)


def _from_hex(ids: Any) -> NDArray[np.uint8]:  # noqa: ANN401  an Arrow array of text
    _, offsets, data = ids.buffers()
    bounds = np.frombuffer(offsets, np.int32)[ids.offset : ids.offset + len(ids) + 1]
    if len(ids) and (np.diff(bounds) != _DIGITS).any():
        raise ValueError(f"a video id has {_DIGITS} digits")
    text = np.frombuffer(data or b"", np.uint8)[bounds[0] : bounds[-1]]
    nibbles = _NIBBLES[text].reshape(-1, 16, 2)
    return (nibbles[:, :, 0] * 16 + nibbles[:, :, 1]).astype(np.uint8)
