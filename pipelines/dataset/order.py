"""Which item of an epoch lies where: arithmetic on (seed, epoch, index), so nothing is replayed.

```
units (row groups) of the corpus ──▶ shuffled ──▶ their items, one unit after the other
                                                  │ cut into lanes of equal length
item g of the epoch  ◀── the lanes take turns ◀───┘
```
There is one order, whatever the number of ranks and workers: they take strided shares of it.
Reading stays cheap because a lane goes through its units one by one: a reader of some lanes holds
one unit of each. If lanes are a multiple of readers, only units on their borders are read twice.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipelines.training_draws import Purpose, order

__all__ = ["Lanes", "shuffled", "unit_order"]


def unit_order(seed: int | None, *, epoch: int, count: int) -> npt.NDArray[np.int64]:
    """The order in which an epoch reads its units; None as seed keeps that of the corpus."""
    return np.arange(count) if seed is None else order(seed, Purpose.UNITS, epoch, count)


def shuffled(
    seed: int | None, purpose: Purpose, *, epoch: int, unit: int, count: int
) -> npt.NDArray[np.int64]:
    """A permutation of ``range(count)`` for one unit in one epoch; None as seed keeps the order."""
    if seed is None:
        return np.arange(count)
    return order(seed, purpose, epoch << 64 | unit, count)


class Lanes:
    """Runs of items that take turns. Their lengths differ by one at most.

    Args:
        total: Items of the epoch.
        count: Lanes, at least one.
    """

    def __init__(self, total: int, count: int) -> None:
        self.total = total
        self.count = count
        self._length, self._longer = divmod(total, count)

    def place(self, index: int) -> int:
        """Where item ``index`` of the epoch lies in reading order.

        Raises:
            IndexError: If there is no such item.
        """
        if not 0 <= index < self.total:
            raise IndexError(f"item {index} of {self.total}")
        turn, lane = divmod(index, self.count)
        return lane * self._length + min(lane, self._longer) + turn
