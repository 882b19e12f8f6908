"""The statistics of pass one, exact under merging: integers only, so no order can matter.

The ELBO of a window is the mean of its stored float16 information. A float16 is a multiple of
2**-24, so the sum over a window is an exact integer (`units.window_sum`). Windows fall into bins of
the fixed-point mean ``total * 2**32 // positions`` (units of 2**-56): its exponent and 10 bits of
mantissa, found by shifting alone, so a bin is at most 1/1024 wide, whatever the magnitude.

Words: *positions* are tokens at full rate, t*h*w of a window. The document calls them ``tokens``.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, NamedTuple, Self

from pydantic import Field, model_validator

from schemas.documents import Part

__all__ = [
    "ElboAccumulator",
    "ElboBin",
    "ElboBins",
    "bin_bounds",
    "bin_index",
    "log_bin",
    "log_bin_bounds",
]

_SUM_BITS = 24
"""Window sums are in units of 2**-24."""
_MEAN_BITS = 32
"""Further bits of the fixed-point mean: finer than 1 / positions for every possible window."""
_MANTISSA_BITS = 10
_MAX_POSITIONS = 1 << _MEAN_BITS


def log_bin(value: int, *, mantissa_bits: int) -> int:
    """Bin of a non-negative integer by exponent and leading bits: 0 for 0, monotone above.

    Raises:
        ValueError: If the value is negative.
    """
    if value < 0:
        raise ValueError(f"a log bin needs a value >= 0, not {value}")
    if value == 0:
        return 0
    exponent = value.bit_length() - 1
    shift = exponent - mantissa_bits
    leading = value >> shift if shift >= 0 else value << -shift
    return 1 + (exponent << mantissa_bits) + leading - (1 << mantissa_bits)


def log_bin_bounds(index: int, *, mantissa_bits: int) -> tuple[Fraction, Fraction]:
    """Lowest value of a bin, and of the next one (exclusive); (0, 0) for bin 0."""
    if index == 0:
        return Fraction(0), Fraction(0)
    exponent, mantissa = divmod(index - 1, 1 << mantissa_bits)
    step = Fraction(1 << exponent, 1 << mantissa_bits)
    lower = ((1 << mantissa_bits) + mantissa) * step
    return lower, lower + step


def _fixed_mean(total: int, tokens: int) -> int:
    return (total << _MEAN_BITS) // tokens


def bin_index(total: int, tokens: int) -> int:
    """Bin of a window: its sum in units of 2**-24, its positions. 0 for a sum of 0."""
    return log_bin(_fixed_mean(total, tokens), mantissa_bits=_MANTISSA_BITS)


def bin_bounds(index: int) -> tuple[float, float]:
    """ELBO range [lower, upper) of a bin; (0, 0) for the windows without any information."""
    lower, upper = log_bin_bounds(index, mantissa_bits=_MANTISSA_BITS)
    scale = Fraction(1, 1 << (_SUM_BITS + _MEAN_BITS))
    return float(lower * scale), float(upper * scale)


class ElboBin(NamedTuple):
    """What fell into one bin.

    Attributes:
        key: See `bin_index`.
        windows: How many.
        tokens: Their positions.
        weighted: Their window sums, in units of 2**-24: the sum of n_i * e_i.
    """

    key: int
    windows: int
    tokens: int
    weighted: int


class ElboBins(Part):
    """An exact histogram of window ELBOs; build it with `ElboAccumulator`.

    Attributes:
        bins: Non-empty bins in order of their key.
        mean_sum: Sum over windows of the fixed-point mean (units of 2**-56, each rounded down).
        lowest: Smallest window ELBO as a reduced (numerator, denominator); None without windows.
        highest: Largest, likewise.
    """

    bins: tuple[ElboBin, ...] = ()
    mean_sum: Annotated[int, Field(ge=0)] = 0
    lowest: tuple[int, int] | None = None
    highest: tuple[int, int] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        previous = -1
        for entry in self.bins:
            if entry.key <= previous or min(entry.windows, entry.tokens) < 1 or entry.weighted < 0:
                raise ValueError(f"bins must be non-empty and in order of their key: {entry}")
            previous = entry.key
        empty = not self.bins
        if empty != (self.lowest is None) or empty != (self.highest is None):
            raise ValueError("lowest and highest exist exactly when there are windows")
        return self

    @classmethod
    def empty(cls) -> ElboBins:
        """No windows: the neutral element of `merge`."""
        return cls()

    def add(self, total: int, tokens: int) -> ElboBins:
        """These and one more window; for many windows use `ElboAccumulator`."""
        accumulator = ElboAccumulator(self)
        accumulator.add(total, tokens)
        return accumulator.freeze()

    @classmethod
    def merge(cls, *parts: ElboBins) -> ElboBins:
        """All windows of all parts; the order and grouping of merges cannot change the result."""
        return ElboAccumulator(*parts).freeze()

    @property
    def windows(self) -> int:
        """Number of windows."""
        return sum(entry.windows for entry in self.bins)

    @property
    def tokens(self) -> int:
        """Number of positions: tokens at full rate."""
        return sum(entry.tokens for entry in self.bins)

    @property
    def weighted(self) -> int:
        """Sum over all positions of their information, in units of 2**-24."""
        return sum(entry.weighted for entry in self.bins)

    @property
    def token_weighted_mean(self) -> float:
        """Mean information of a position; 0.0 without windows."""
        return self.weighted / (self.tokens << _SUM_BITS) if self.bins else 0.0

    @property
    def window_weighted_mean(self) -> float:
        """Mean ELBO of a window, as Eq. 4 of the paper divides by; 0.0 without windows."""
        return self.mean_sum / (self.windows << (_SUM_BITS + _MEAN_BITS)) if self.bins else 0.0

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest window ELBO; (0, 0) without windows."""
        if self.lowest is None or self.highest is None:
            return 0.0, 0.0
        return self.lowest[0] / self.lowest[1], self.highest[0] / self.highest[1]


class ElboAccumulator:
    """Counts windows; mutable, for one owner. `freeze` does not depend on the order of calls."""

    def __init__(self, *parts: ElboBins) -> None:
        self._bins: dict[int, list[int]] = {}
        self._mean_sum = 0
        # (numerator, denominator), not reduced: a million Fractions are seconds.
        self._lowest: tuple[int, int] | None = None
        self._highest: tuple[int, int] | None = None
        for part in parts:
            self.merge(part)

    def add(self, total: int, tokens: int) -> None:
        """Count one window.

        Args:
            total: `units.window_sum` of its information, in units of 2**-24.
            tokens: Its positions t*h*w.

        Raises:
            ValueError: If the sum is negative or there are no positions.
        """
        if total < 0 or not 0 < tokens < _MAX_POSITIONS:
            raise ValueError(f"not a window: sum {total} over {tokens} positions")
        self._count(bin_index(total, tokens), 1, tokens, total)
        self._mean_sum += _fixed_mean(total, tokens)
        self._stretch((total, tokens << _SUM_BITS))

    def merge(self, part: ElboBins) -> None:
        """Count all windows of ``part``."""
        for entry in part.bins:
            self._count(*entry)
        self._mean_sum += part.mean_sum
        for end in (part.lowest, part.highest):
            if end is not None:
                self._stretch(end)

    def freeze(self) -> ElboBins:
        """What was counted so far; later calls do not change it."""
        return ElboBins(
            bins=tuple(ElboBin(key, *counts) for key, counts in sorted(self._bins.items())),
            mean_sum=self._mean_sum,
            lowest=_ratio(self._lowest),
            highest=_ratio(self._highest),
        )

    def _count(self, key: int, windows: int, tokens: int, weighted: int) -> None:
        counts = self._bins.setdefault(key, [0, 0, 0])
        counts[0] += windows
        counts[1] += tokens
        counts[2] += weighted

    def _stretch(self, elbo: tuple[int, int]) -> None:
        if self._lowest is None or _less(elbo, self._lowest):
            self._lowest = elbo
        if self._highest is None or _less(self._highest, elbo):
            self._highest = elbo


def _less(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] * other[1] < other[0] * one[1]


def _ratio(value: tuple[int, int] | None) -> tuple[int, int] | None:
    if value is None:
        return None
    reduced = Fraction(*value)
    return reduced.numerator, reduced.denominator
