"""The integer histograms of a corpus as a few dozen bars, for the card and the report."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from schemas.bins import ElboBins, bin_bounds, log_bin_bounds
from schemas.manifest import RATE_BINS, TOKEN_MANTISSA_BITS, Totals

__all__ = ["Bar", "Histogram", "elbo_histogram", "rate_histogram", "token_histogram"]


@dataclass(frozen=True, slots=True)
class Bar:
    """Windows with a value in [lower, upper); rates are in (lower, upper]."""

    lower: float
    upper: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Neighbouring bars, equally wide on the axis; empty ones in between are there.

    Attributes:
        title: What is counted.
        axis: What the axis shows, with its unit.
        scale: How bounds lie on the axis.
        bars: In rising order; none if there is no window.
        num_zero: Windows with the value 0, which a logarithmic axis cannot show.
    """

    title: str
    axis: str
    scale: Literal["linear", "log"]
    bars: tuple[Bar, ...]
    num_zero: int = 0


def rate_histogram(totals: Totals, *, max_bars: int = RATE_BINS) -> Histogram:
    """Windows by their realised rate."""
    step = -(-RATE_BINS // max_bars)
    bars = tuple(
        Bar(
            first / RATE_BINS,
            min(first + step, RATE_BINS) / RATE_BINS,
            sum(totals.rate_histogram[first : first + step]),
        )
        for first in range(0, RATE_BINS, step)
    )
    return Histogram(
        title="Rate of a window",
        axis="kept tokens / tokens at full rate",
        scale="linear",
        bars=bars if totals.clips else (),
    )


def token_histogram(totals: Totals, *, max_bars: int = 48) -> Histogram:
    """Windows by their number of tokens."""
    counts = [
        (log_bin_bounds(key, mantissa_bits=TOKEN_MANTISSA_BITS), count)
        for key, count in totals.token_histogram
    ]
    bars = _log_bars(((float(low + high) / 2, count) for (low, high), count in counts), max_bars)
    return Histogram(title="Tokens per window", axis="kept tokens", scale="log", bars=bars)


def elbo_histogram(bins: ElboBins, *, max_bars: int = 48) -> Histogram:
    """Windows by their ELBO: the mean information of their tokens."""
    bounds = [(bin_bounds(entry.key), entry.windows) for entry in bins.bins if entry.key]
    return Histogram(
        title="Information of a window (ELBO proxy)",
        axis="mean absolute error on pixels in [-1, 1]",
        scale="log",
        bars=_log_bars((((low + high) / 2, count) for (low, high), count in bounds), max_bars),
        num_zero=sum(entry.windows for entry in bins.bins if not entry.key),
    )


def _log_bars(values: Iterable[tuple[float, int]], max_bars: int) -> tuple[Bar, ...]:
    """Counted values > 0 in bars of one width in octaves, the finest that needs few bars."""
    octaves = [(math.log2(value), count) for value, count in values]
    for per_octave in (16.0, 8.0, 4.0, 2.0, 1.0, 0.5, 0.25):
        counts: Counter[int] = Counter()
        for octave, count in octaves:
            counts[math.floor(octave * per_octave)] += count
        if not counts:
            return ()
        keys = range(min(counts), max(counts) + 1)
        if len(keys) <= max_bars:
            break
    edges = [2.0 ** (key / per_octave) for key in (*keys, keys[-1] + 1)]
    return tuple(
        Bar(low, high, counts[key])
        for key, low, high in zip(keys, edges[:-1], edges[1:], strict=True)
    )
