"""How long every row of a corpus is: what has to be known before it can be packed.

13 bytes a row. Of Parquet files four small columns are read, of tars, which have no columns,
everything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.dataset.corpus import Corpus
from pipelines.dataset.unit_reader import KEY_COLUMNS, UnitReader

__all__ = ["RowIndex", "read_index"]

_THREADS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class RowIndex:
    """Rows in order of the units; R rows, U units.

    Attributes:
        unit_starts: int64 [U + 1]: the rows of unit u are ``unit_starts[u]`` to
            ``unit_starts[u + 1]``.
        numbers: int32 [R]: number of the row in its unit.
        num_tokens: int32 [R].
        grid_t: int32 [R]: latent frames.
        begins: bool [R]: the row before is not the window before of the same video.
    """

    unit_starts: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int32]
    num_tokens: npt.NDArray[np.int32]
    grid_t: npt.NDArray[np.int32]
    begins: npt.NDArray[np.bool_]

    def rows(self, unit: int) -> range:
        """The rows of a unit."""
        return range(int(self.unit_starts[unit]), int(self.unit_starts[unit + 1]))

    def fingerprint(self) -> str:
        """Which rows these are."""
        return hashlib.sha256(self.unit_starts.tobytes() + self.numbers.tobytes()).hexdigest()


def read_index(
    corpus: Corpus, reader: UnitReader, *, videos: Callable[[str], bool] | None = None
) -> RowIndex:
    """Read it.

    Args:
        corpus: Which one.
        reader: Of this corpus.
        videos: Says for a video id whether its rows take part; None: all do.

    Raises:
        FormatError: If a file is damaged.
        StorageError: If one is gone or cannot be reached.
        ValueError: If no row takes part.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        keys = list(pool.map(reader.keys, corpus.files))
    parts: list[dict[str, npt.NDArray[Any]]] = []
    for columns, (_, units) in zip(
        keys, groupby(corpus.units, key=lambda unit: unit.file.path), strict=True
    ):
        for unit in units:
            rows = slice(unit.first, unit.first + unit.count)
            parts.append(_unit([column[rows] for column in columns], videos))
    counts = [len(part["numbers"]) for part in parts]
    if not sum(counts):
        raise ValueError("no row of the corpus takes part")
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return RowIndex(unit_starts=np.concatenate([[0], np.cumsum(counts)]), **joined)


def _unit(
    columns: Sequence[Sequence[Any]], videos: Callable[[str], bool] | None
) -> dict[str, npt.NDArray[Any]]:
    named = dict(zip(KEY_COLUMNS, columns, strict=True))
    names, windows = named["video_id"], np.asarray(named["window_index"], np.int64)
    begins = np.ones(len(names), np.bool_)
    follows = np.array([a == b for a, b in pairwise(names)], np.bool_)
    begins[1:] = ~(follows & (np.diff(windows) == 1))
    kept = np.ones(len(names), np.bool_)
    if videos is not None:
        wanted = {name: bool(videos(name)) for name in set(names)}
        kept = np.array([wanted[name] for name in names], np.bool_)
    return {
        "numbers": np.flatnonzero(kept).astype(np.int32),
        "num_tokens": np.asarray(named["num_tokens"], np.int32)[kept],
        "grid_t": np.asarray(named["grid_t"], np.int32)[kept],
        "begins": begins[kept],
    }
