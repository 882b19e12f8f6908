"""What a sample of videos says about all of them, and how far off that may be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["METHOD", "Interval", "VideoResamples"]

METHOD = (
    "95 % percentile bootstrap over the sampled videos, {resamples:,} resamples, ratio to source "
    "bytes, narrowed by the share of videos that were sampled (bytes to come, and tokens where no "
    "rate is met: of windows that were analysed)"
)

RESAMPLES = 4000
_SEED = 20261125
_TAILS = (2.5, 97.5)


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate for all videos; ``low`` and ``high`` are None if only one of them was seen."""

    value: float
    low: float | None
    high: float | None

    def times(self, factor: float) -> Interval:
        """In another unit."""
        ends = (None if end is None else end * factor for end in (self.low, self.high))
        return Interval(self.value * factor, *ends)

    def plus(self, number: float) -> Interval:
        """With so much more, which is known."""
        ends = (None if end is None else end + number for end in (self.low, self.high))
        return Interval(self.value + number, *ends)

    def by(self, other: Interval) -> Interval:
        """The product of two, taken as independent: relative errors add as squares."""
        value = self.value * other.value
        if None in (self.low, self.high, other.low, other.high):
            return Interval(value, None, None)
        (below, above), (below_other, above_other) = self._errors(), other._errors()
        return Interval(
            value,
            value * max(1 - math.hypot(below, below_other), 0.0),
            value * (1 + math.hypot(above, above_other)),
        )

    def _errors(self) -> tuple[float, float]:
        if not self.value or self.low is None or self.high is None:
            return 0.0, 0.0
        return 1 - self.low / self.value, self.high / self.value - 1


class VideoResamples:
    """Totals over all videos from a simple random sample of them, as ratios to their source bytes.

    A video that fails has its bytes and nothing else. Windows of one video resemble each other, so
    whole videos are drawn again. With few videos (below 20 or so) a bootstrap promises too much.

    Args:
        num_bytes: Source bytes of each sampled video.
        total_bytes: Source bytes of all videos.
        total_videos: How many these are.
    """

    def __init__(self, num_bytes: Sequence[int], *, total_bytes: int, total_videos: int) -> None:
        self._bytes = np.asarray(num_bytes, np.float64)
        self._total_bytes = total_bytes
        self._total_videos = total_videos
        count = len(num_bytes)
        draws = np.random.default_rng(_SEED).integers(0, count, (RESAMPLES, count))
        weights = np.zeros((RESAMPLES, count))
        np.add.at(weights, (np.arange(RESAMPLES)[:, None], draws), 1)
        self._weights = weights
        # Of a sample that is everything there is nothing left to guess.
        self._unseen = float(np.sqrt(1 - count / total_videos))

    def total(self, values: Sequence[float]) -> Interval:
        """Sum over all videos of what these are for the sampled ones."""
        array = np.asarray(values, np.float64)
        known = self._bytes.sum()
        if not known:
            return self._interval(array.mean() * self._total_videos, None)
        drawn = self._weights @ self._bytes
        some = drawn > 0
        ratios = (self._weights @ array)[some] / drawn[some]
        estimate = array.sum() / known
        return self._interval(estimate, ratios).times(self._total_bytes)

    def per(self, values: Sequence[float], of: Sequence[float], *, seen: float) -> Interval:
        """How much of one thing there is for each of another, 0 if there is none of that.

        Args:
            seen: Share of all windows, those of videos that are not in the sample included, that
                the values come from. While it is below 1 something is left to guess, even if every
                video was sampled.
        """
        above, below = np.asarray(values, np.float64), np.asarray(of, np.float64)
        if not below.sum():
            return Interval(0.0, 0.0, 0.0)
        drawn = self._weights @ below
        some = drawn > 0
        ratios = (self._weights @ above)[some] / drawn[some]
        return self._interval(above.sum() / below.sum(), ratios, math.sqrt(max(1 - seen, 0.0)))

    def count(self, flags: Sequence[bool]) -> Interval:
        """Number of videos for which this holds."""
        array = np.asarray(flags, np.float64)
        shares = self._weights @ array / len(array)
        return self._interval(array.mean(), shares).times(self._total_videos)

    def _interval(
        self, estimate: float, drawn: NDArray[np.float64] | None, unseen: float | None = None
    ) -> Interval:
        value = float(estimate)
        unseen = self._unseen if unseen is None else unseen
        if not unseen:
            return Interval(value, value, value)
        if len(self._bytes) < 2 or drawn is None:
            return Interval(value, None, None)
        low, high = (float(end) for end in np.percentile(drawn, _TAILS))
        return Interval(
            value,
            max(value - (value - low) * unseen, 0.0),
            value + (high - value) * unseen,
        )
