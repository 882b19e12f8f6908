"""How many tokens of a corpus score how high: what one threshold for all of them is solved on.

The score of a token is its information over the square root of the ELBO of its window. It is
worked out in float64 from stored float16 values by a division and a square root, which IEEE 754
rounds in one way alone, and its bin is read off the bits: exponent and 3 bits of mantissa, so a bin
is at most 1/8 wide. Counts are integers: as in `bins`, no machine and no order can matter.

A window always keeps the best of its tokens, as many as its least rate says; these are counted
apart. The tokens of a window without information score 0, the last to be kept.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Annotated, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from schemas.documents import Part
from schemas.units import window_sum

__all__ = [
    "TokenAccumulator",
    "TokenBin",
    "TokenBins",
    "least_tokens",
    "score_bin",
    "score_bin_start",
    "token_score_bins",
]

_MANTISSA_BITS = 3
"""Single tokens in place of bins change less than 0.002 dB (benchmarks/router_rules.py), and 42
windows fill 46 of these."""
_SHIFT = 52 - _MANTISSA_BITS


def score_bin(score: float) -> int:
    """Bin of a score >= 0: 0 for 0, and never lower for a higher score."""
    return int(np.float64(score).view(np.int64)) >> _SHIFT


def score_bin_start(key: int) -> float:
    """Lowest score of a bin."""
    return float(np.int64(key << _SHIFT).view(np.float64))


def token_score_bins(information: NDArray[np.float16]) -> NDArray[np.int64]:
    """Bin of each token of a window ``[n]``, in falling order: the first are kept first.

    Args:
        information: One window's map, of any shape.

    Raises:
        ValueError: As `window_sum`.
    """
    total = window_sum(information)
    if total == 0:
        return np.zeros(information.size, np.int64)
    root = math.sqrt(math.ldexp(total / information.size, -24))
    # float16 has a -0.0, and its bits are not those of 0.
    scores = np.abs(information.astype(np.float64)).reshape(-1) / root
    return np.sort(scores.view(np.int64) >> _SHIFT)[::-1]


def least_tokens(min_rate: float, cells: int) -> int:
    """Tokens that a window of ``cells`` always keeps: ``min_rate`` of them, rounded down, but one.

    Rounded down, because the sum over the corpus must not exceed a budget of ``min_rate``.
    """
    return max(math.floor(min_rate * cells), 1)


class TokenBin(NamedTuple):
    """How many tokens fell into a bin; ``key``: see `score_bin`."""

    key: int
    tokens: int


class TokenBins(Part):
    """An exact histogram of token scores; build it with `TokenAccumulator`.

    Attributes:
        min_rate: Least rate of a window that it was counted with.
        always: Tokens that are kept whatever the threshold, see `least_tokens`.
        bins: The others: non-empty bins in order of their key.
    """

    min_rate: Annotated[float, Field(gt=0, le=1)]
    always: Annotated[int, Field(ge=0)] = 0
    bins: tuple[TokenBin, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        previous = -1
        for entry in self.bins:
            if entry.key <= previous or entry.tokens < 1:
                raise ValueError(f"bins must be non-empty and in order of their key: {entry}")
            previous = entry.key
        return self

    @classmethod
    def merge(cls, first: TokenBins, *others: TokenBins) -> TokenBins:
        """All tokens of all parts; the order and grouping of merges cannot change the result.

        Raises:
            ValueError: If they were counted with different least rates.
        """
        accumulator = TokenAccumulator(first.min_rate)
        for part in (first, *others):
            accumulator.merge(part)
        return accumulator.freeze()

    @property
    def tokens(self) -> int:
        """Number of tokens at full rate."""
        return self.always + sum(entry.tokens for entry in self.bins)


class TokenAccumulator:
    """Counts the tokens of windows; mutable, for one owner. The order of calls does not matter."""

    def __init__(self, min_rate: float) -> None:
        self._min_rate = min_rate
        self._always = 0
        self._bins: Counter[int] = Counter()

    def add(self, information: NDArray[np.float16]) -> None:
        """Count one window; its map may have any shape.

        Raises:
            ValueError: As `window_sum`.
        """
        always = least_tokens(self._min_rate, information.size)
        keys, counts = np.unique(token_score_bins(information)[always:], return_counts=True)
        self._always += always
        self._bins.update(dict(zip(keys.tolist(), counts.tolist(), strict=True)))

    def merge(self, part: TokenBins) -> None:
        """Count all tokens of ``part``.

        Raises:
            ValueError: If it was counted with another least rate.
        """
        if part.min_rate != self._min_rate:
            raise ValueError(
                f"tokens counted with a least rate of {part.min_rate} cannot be added to those "
                f"counted with {self._min_rate}"
            )
        self._always += part.always
        self._bins.update(dict(part.bins))

    def freeze(self) -> TokenBins:
        """What was counted so far; later calls do not change it."""
        bins = tuple(TokenBin(key, count) for key, count in sorted(self._bins.items()))
        return TokenBins(min_rate=self._min_rate, always=self._always, bins=bins)
