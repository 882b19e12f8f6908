"""Which item of an epoch lies where: arithmetic on (seed, epoch, index), so nothing is replayed.

```
units (row groups) of the corpus ──▶ shuffled ──▶ dealt to lanes ──▶ items of each lane
item g of the epoch              ──▶ (lane, k): the lanes take turns, and drop out when they end
```
There is one order, whatever the number of ranks and workers: they take strided shares of it.
Reading stays cheap because a lane goes through its units one by one: a reader of some lanes
holds one unit of each, and if lanes are a multiple of readers, no unit is read by two of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipelines.training_draws import Purpose, order

__all__ = ["Interleave", "deal_units", "shuffled"]


def deal_units(
    weights: Sequence[int], *, lanes: int, seed: int | None, epoch: int
) -> list[list[int]]:
    """The units of each lane, in the order they are read; every unit once.

    Args:
        weights: Rows of each unit; the lanes come out about equally long.
        lanes: At most so many, and never more than units.
        seed: None keeps the order of the corpus, in one lane.
        epoch: >= 0; each has an order of its own.
    """
    count = len(weights)
    if seed is None:
        return [list(range(count))]
    dealt: list[list[int]] = [[] for _ in range(max(1, min(lanes, count)))]
    loads = [0] * len(dealt)
    for unit in order(seed, Purpose.UNITS, epoch, count).tolist():
        lane = loads.index(min(loads))
        dealt[lane].append(unit)
        loads[lane] += weights[unit]
    return dealt


def shuffled(
    seed: int | None, purpose: Purpose, *, epoch: int, unit: int, count: int
) -> npt.NDArray[np.int64]:
    """A permutation of ``range(count)`` for one unit in one epoch; None as seed keeps the order."""
    if seed is None:
        return np.arange(count)
    return order(seed, purpose, epoch << 64 | unit, count)


class Interleave:
    """Item g of all lanes: they take turns, and one that has ended is passed over.

    Args:
        counts: Items of each lane.
    """

    def __init__(self, counts: Sequence[int]) -> None:
        self._counts = np.asarray(counts, np.int64)
        # Between two of these turns the same lanes take part.
        self._turns = np.unique(np.concatenate([[0], self._counts]))
        taking = (self._counts[None, :] > self._turns[:, None]).sum(axis=1)
        before = np.concatenate([[0], np.cumsum(np.diff(self._turns) * taking[:-1])])
        self._first = before.astype(np.int64)

    def __len__(self) -> int:
        return int(self._counts.sum())

    def place(self, index: int) -> tuple[int, int]:
        """(lane, number of the item in its lane).

        Raises:
            IndexError: If there is no such item.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        part = int(np.searchsorted(self._first, index, side="right")) - 1
        taking = np.flatnonzero(self._counts > self._turns[part])
        turn, which = divmod(index - int(self._first[part]), len(taking))
        return int(taking[which]), int(self._turns[part]) + turn
