"""What windows add to the statistics of pass one: always their ELBO, on demand their tokens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schemas.bins import ElboAccumulator, ElboBins
from schemas.token_bins import TokenAccumulator, TokenBins
from schemas.units import window_sum

__all__ = ["WindowCounter"]


class WindowCounter:
    """Counts windows; mutable, for one owner. The order of calls does not matter.

    Args:
        token_floor: Least rate that tokens are counted with (`token_bins`); None: they are not.
    """

    def __init__(self, token_floor: float | None) -> None:
        self._bins = ElboAccumulator()
        self._tokens = None if token_floor is None else TokenAccumulator(token_floor)

    def add(self, information: NDArray[np.float16]) -> None:
        """Count one window; its map may have any shape.

        Raises:
            ValueError: As `window_sum`.
        """
        self._bins.add(window_sum(information), information.size)
        if self._tokens is not None:
            self._tokens.add(information)

    def freeze(self) -> tuple[ElboBins, TokenBins | None]:
        """What was counted so far; later calls do not change it."""
        return self._bins.freeze(), None if self._tokens is None else self._tokens.freeze()
