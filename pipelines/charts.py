"""The charts of the report, drawn by matplotlib as inline SVG in the colours of the page.

matplotlib is imported when something is drawn. No pyplot: nothing global is touched, and no display
is needed. It writes colours as numbers; those of `_ROLES` become the page's custom properties, so
that one drawing is light and dark. Text stays text, in the page's font.
"""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, cast

from pipelines.histograms import Histogram
from pipelines.wording import compact, significant

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

__all__ = ["has_charts", "histogram_svg", "scatter_svg", "timeline_svg"]

_INCH = 72
"""Units of an SVG by matplotlib per inch."""
_WIDTH = 460
_LEFT, _RIGHT, _LABEL, _LINE = 46, 14, 22, 15
"""Beside the axes, for six digits and half a label; below them; and for each line of text more."""
_ROLES = {
    "bar": "#0000b1",
    "mark": "#0000b2",
    "soft": "#0000b3",
    "line": "#0000b4",
    "fill": "#0000b5",
}
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "infotok",
    # A dollar sign is a dollar sign.
    "text.parse_math": False,
    "font.size": 11.5,
    "text.color": _ROLES["soft"],
    "axes.facecolor": "none",
    "axes.edgecolor": _ROLES["soft"],
    "axes.labelcolor": _ROLES["soft"],
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": _ROLES["line"],
    "grid.linewidth": 0.8,
    "xtick.color": _ROLES["soft"],
    "ytick.color": _ROLES["soft"],
    "ytick.major.size": 0,
    "xtick.major.size": 3,
    "xtick.minor.size": 0,
    "figure.facecolor": "none",
}
_TIP = "tip-"
_FEW_TICKS = 3


def has_charts() -> bool:
    """Whether matplotlib, the extra ``plots``, is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def histogram_svg(histogram: Histogram, *, markers: Sequence[tuple[str, float]] = ()) -> str:
    """An ``<svg>``: windows per bin, each bar with a tip that says what it counts.

    Args:
        histogram: With at least one bar.
        markers: Labelled values, drawn as lines; those outside the axis are left out.
    """
    bars = histogram.bars
    low, high = bars[0].lower, bars[-1].upper
    tips = [
        f"{significant(bar.lower)} to {significant(bar.upper)}: {bar.count:,} windows"
        for bar in bars
    ]

    def draw(axes: Axes) -> None:
        if histogram.scale == "log":
            axes.set_xscale("log")
        axes.set_xlim(low, high)
        _ticks(axes, axes.xaxis, log=histogram.scale == "log")
        _ticks(axes, axes.yaxis, whole=True)
        for number, bar in enumerate(bars):
            width = bar.upper - bar.lower
            (drawn,) = axes.bar(bar.lower + 0.04 * width, bar.count, 0.92 * width, align="edge",
                                color=_ROLES["bar"])  # fmt: skip
            drawn.set_gid(f"{_TIP}{number}")
        for number, (label, value) in enumerate(markers):
            if low <= value <= high:
                axes.axvline(value, color=_ROLES["mark"], linestyle=(0, (3, 3)), linewidth=1.2)
                _label(axes, value, f"{label} {significant(value)}", row=number)

    alt = f"{histogram.title}: {sum(bar.count for bar in bars):,} windows in {len(bars)} bins"
    return _svg(draw, height=240, alt=alt, tips=tips, above=len(markers), below=0)


def scatter_svg(
    points: Sequence[tuple[float, float]],
    *,
    tips: Sequence[str],
    curve: Sequence[tuple[float, float]],
    axis: str,
) -> str:
    """An ``<svg>``: the rate of windows over their information, and the rule behind it.

    Args:
        points: (information, rate) of windows.
        tips: What a point says when it is pointed at.
        curve: The rule, in order of the information; empty: none is drawn.
        axis: What the information is, with its unit.
    """

    def draw(axes: Axes) -> None:
        if curve:
            axes.plot(*zip(*curve, strict=True), color=_ROLES["mark"], linewidth=1.2,
                      linestyle=(0, (3, 3)))  # fmt: skip
        for number, (information, rate) in enumerate(points):
            axes.plot([information], [rate], marker="o", markersize=5, markeredgewidth=0,
                      alpha=0.55, color=_ROLES["bar"], gid=f"{_TIP}{number}")  # fmt: skip
        axes.set_xlim(left=0)
        axes.set_ylim(0, 1.04)
        _ticks(axes, axes.xaxis)
        _ticks(axes, axes.yaxis)
        axes.set_xlabel(axis)

    return _svg(
        draw, height=240, alt=f"Rate over information of {len(points):,} windows", tips=tips
    )


def timeline_svg(
    spans: Sequence[tuple[float, float, float, float]],
    *,
    top: float,
    shown: tuple[float, float] | None,
) -> str:
    """An ``<svg>``: tokens per second over the time of a video.

    Args:
        spans: (start, end, tokens per second, the same at full rate) of each window; times in
            seconds. A padded tail has more of both than the windows before it.
        top: Of the axis, so that several videos can be compared.
        shown: The part that is played beside it, in seconds.
    """
    tips = [
        f"{significant(start)} s to {significant(end)} s: {significant(pace)} tokens a second"
        for start, end, pace, _ in spans
    ]

    def draw(axes: Axes) -> None:
        if shown is not None:
            axes.axvspan(*shown, color=_ROLES["fill"], linewidth=0)
        for number, (start, end, pace, _) in enumerate(spans):
            (drawn,) = axes.bar(start, pace, end - start, align="edge", color=_ROLES["bar"],
                                alpha=0.85, linewidth=0)  # fmt: skip
            drawn.set_gid(f"{_TIP}{number}")
        borders = [span[0] for span in spans] + [spans[-1][1]]
        full = [span[3] for span in spans] + [spans[-1][3]]
        axes.plot(borders, full, drawstyle="steps-post", color=_ROLES["mark"],
                  linestyle=(0, (3, 3)), linewidth=1.2)  # fmt: skip
        axes.set_xlim(spans[0][0], spans[-1][1])
        axes.set_ylim(0, top)
        _ticks(axes, axes.xaxis)
        _ticks(axes, axes.yaxis)
        axes.set_xlabel("seconds")

    return _svg(draw, height=150, alt=f"Tokens per second over {len(spans)} windows", tips=tips)


def _ticks(axes: Axes, axis: Axis, *, log: bool = False, whole: bool = False) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    def text(value: float, _: int | None = None) -> str:
        return compact(value) if abs(value) >= 1e4 else significant(value)

    locator: Any = MaxNLocator(nbins=5, integer=whole)
    if log:
        low, high = axes.get_xlim()
        wide = LogLocator(subs=(1.0,) if high > 1e3 * low else (1.0, 2.0, 5.0))
        inside = [value for value in wide.tick_values(low, high) if low <= value <= high]
        # Less than a decade: round numbers as on a linear axis.
        locator = wide if len(inside) >= _FEW_TICKS else MaxNLocator(nbins=5)
    axis.set_major_locator(locator)
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(text))


def _label(axes: Axes, value: float, text: str, *, row: int) -> None:
    """Beside the line of a marker, above the bars; rows keep labels apart."""
    place = axes.transData.transform((value, 0))[0]
    share = axes.transAxes.inverted().transform((place, 0))[0]
    right = share < 0.65
    axes.annotate(
        text, (value, 1.0), xycoords=("data", "axes fraction"), color=_ROLES["mark"],
        xytext=(5 if right else -5, 4 + 14 * row), textcoords="offset points",
        ha="left" if right else "right", va="bottom",
    )  # fmt: skip


def _svg(
    draw: Callable[[Axes], None], *, height: int, alt: str, tips: Sequence[str],
    above: int = 0, below: int = 1,
) -> str:  # fmt: skip
    """``above`` and ``below``: lines of text beside the labels of the ticks."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(cast("Any", _STYLE)):
        figure = Figure(figsize=(_WIDTH / _INCH, height / _INCH))
        # Margins by hand: a layout engine would take longer than all the rest.
        figure.subplots_adjust(
            left=_LEFT / _WIDTH,
            right=1 - _RIGHT / _WIDTH,
            bottom=(_LABEL + _LINE * below) / height,
            top=1 - (8 + _LINE * above) / height,
        )
        draw(figure.subplots())
        sink = io.BytesIO()
        figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None})
    text = sink.getvalue().decode()
    return _themed(text[text.index("<svg") :], alt=alt, tips=tips)


def _themed(svg: str, *, alt: str, tips: Sequence[str]) -> str:
    """One drawing for a page with many: no ids that clash, no sizes, colours of the page."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)
    for role, colour in _ROLES.items():
        svg = svg.replace(colour, f"var(--{role})")

    def group(match: re.Match[str]) -> str:
        name = match[1]
        if not name.startswith(_TIP):
            return "<g>"
        tip = escape(tips[int(name.removeprefix(_TIP))])
        return f'<g class="tip"><title>{tip}</title>'

    return re.sub(r'<g id="([^"]*)">', group, svg).strip()
