"""One histogram as inline SVG: no script, colours from the page's custom properties."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from pipelines.histograms import Bar, Histogram
from pipelines.wording import compact, significant

__all__ = ["histogram_svg"]

_WIDTH, _HEIGHT = 720, 236
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 30, 34
_PLOT_WIDTH, _PLOT_HEIGHT = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
_GAP = 1.5
_MAX_TICKS = 9


def histogram_svg(histogram: Histogram, *, markers: Sequence[tuple[str, float]] = ()) -> str:
    """An ``<svg>`` element; it needs the CSS of `report`.

    Args:
        histogram: With at least one bar.
        markers: Labelled values, drawn as lines; those outside the axis are left out.
    """
    bars = histogram.bars
    top = _nice_top(max(bar.count for bar in bars))
    label = f"{histogram.title}: {sum(bar.count for bar in bars):,} windows in {len(bars)} bins"
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">',
        *_grid(top),
        *_bars(bars, top),
        f'<line class="base" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{_y(0, top)}" '
        f'y2="{_y(0, top)}"/>',
        *_ticks(histogram),
        *_markers(bars, markers),
        "</svg>",
    ]
    return "\n".join(parts)


def _nice_top(count: int) -> int:
    """The next short number that is a good top of an axis."""
    power = 10 ** (len(str(count)) - 1)
    return next(step * power for step in (1, 2, 3, 4, 5, 6, 8, 10) if step * power >= count)


def _y(count: float, top: int) -> float:
    return round(_TOP + _PLOT_HEIGHT * (1 - count / top), 2)


def _x(bars: Sequence[Bar], value: float) -> float | None:
    """Where a value lies: within its bar; None outside all bars."""
    for index, bar in enumerate(bars):
        if bar.lower <= value <= bar.upper:
            # Linear within a bar, also on a logarithmic axis: off by less than a pixel or two.
            share = index + (value - bar.lower) / (bar.upper - bar.lower)
            return round(_LEFT + _PLOT_WIDTH * share / len(bars), 2)
    return None


def _grid(top: int) -> list[str]:
    parts: list[str] = []
    for share in (0.0, 0.5, 1.0):
        count = top * share
        y = _y(count, top)
        if share:
            parts.append(
                f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>'
            )
        if count == int(count):
            parts.append(f'<text class="end" x="{_LEFT - 8}" y="{y + 4}">{compact(count)}</text>')
    return parts


def _bars(bars: Sequence[Bar], top: int) -> list[str]:
    slot = _PLOT_WIDTH / len(bars)
    gap = min(_GAP, slot / 4)
    parts: list[str] = []
    for index, bar in enumerate(bars):
        if not bar.count:
            continue
        # A bar with one window among millions must still be seen.
        height = max(_y(0, top) - _y(bar.count, top), 1.0)
        x = _LEFT + index * slot + gap / 2
        tip = f"{significant(bar.lower)} to {significant(bar.upper)}: {bar.count:,} windows"
        parts.append(
            f'<rect class="bar" x="{x:.2f}" y="{_y(0, top) - height:.2f}" '
            f'width="{slot - gap:.2f}" height="{height:.2f}" rx="1.5">'
            f"<title>{escape(tip)}</title></rect>"
        )
    return parts


def _ticks(histogram: Histogram) -> list[str]:
    bars = histogram.bars
    lower, upper = bars[0].lower, bars[-1].upper
    values = [0.0, 0.25, 0.5, 0.75, 1.0]
    if histogram.scale == "log":
        values = _round_values(lower, upper)
    parts: list[str] = []
    for value in values:
        x = _x(bars, value)
        if x is not None:
            text = compact(value) if value >= 1e4 else significant(value)
            parts.append(f'<text class="mid" x="{x}" y="{_HEIGHT - _BOTTOM + 18}">{text}</text>')
    return parts


def _round_values(lower: float, upper: float) -> list[float]:
    """Values 1, 2, 5 times powers of ten in the range, so few that their labels fit."""
    first, last = math.floor(math.log10(lower)), math.ceil(math.log10(upper))
    for steps in ((1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 5), (1,)):
        values = [float(f"{step}e{power}") for power in range(first, last + 1) for step in steps]
        inside = [value for value in values if lower <= value <= upper]
        if len(inside) <= _MAX_TICKS:
            return inside if len(inside) > 1 else [lower, upper]
    return inside[:: math.ceil(len(inside) / _MAX_TICKS)]


def _markers(bars: Sequence[Bar], markers: Sequence[tuple[str, float]]) -> list[str]:
    parts: list[str] = []
    for row, (label, value) in enumerate(markers):
        x = _x(bars, value)
        if x is None:
            continue
        # Near the right edge the label goes to the left of its line; rows keep labels apart.
        right = x < _LEFT + 0.7 * _PLOT_WIDTH
        y = 11 + 13 * row
        parts.append(
            f'<line class="mark" x1="{x}" x2="{x}" y1="{y - 9}" y2="{_HEIGHT - _BOTTOM}"/>'
            f'<text class="mark-label{"" if right else " end"}" x="{x + (6 if right else -6)}" '
            f'y="{y}">{escape(label)} {significant(value)}</text>'
        )
    return parts
