"""How the pictures of an evaluation look: colours that everybody tells apart, little else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from schemas.evaluation import EvaluationReport, Outcome, Router, Selected

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "COLOURS",
    "MEASURES",
    "SHADES",
    "STYLE",
    "bar_places",
    "bar_width",
    "outcomes_at",
    "rate_ticks",
]

_Key = TypeVar("_Key")

_INK = "#222222"
MEASURES = (("psnr_db", "Mean PSNR of the clips"), ("psnr_pooled_db", "PSNR of the pooled error"))
"""What is shown of an outcome, and its name: both, since routers differ in which they favour."""
SHADES = ("#08306b", "#2171b5", "#6baed6", "#9ecae1")
# Okabe and Ito: told apart by everybody.
COLOURS: dict[str, str] = {
    "global_elbo": "#0072B2",
    "static": "#E69F00",
    "global_elbo_paper": "#56B4E9",
    "global_latent": "#009E73",
    "token_threshold": "#D55E00",
    "search": "#CC79A7",
    "optimal_error": "#222222",
    "optimal_psnr": "#222222",
    "information": "#0072B2",
    "jump": "#009E73",
    "r2l": "#D55E00",
}
STYLE = {
    "font.size": 13,
    "axes.titlesize": 15,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": _INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8e8e8",
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "legend.fontsize": 12,
    "figure.facecolor": "white",
}


def bar_places(keys: Sequence[_Key], groups: int) -> dict[_Key, list[float]]:
    """Middles of the bars of each key, one per group; groups stand at 0, 1, 2, ..."""
    width, middle = bar_width(len(keys)), (len(keys) - 1) / 2
    return {
        key: [group + (place - middle) * width for group in range(groups)]
        for place, key in enumerate(keys)
    }


def bar_width(count: int) -> float:
    """Of each of ``count`` bars in a group, with a gap between groups."""
    return 0.84 / count


def rate_ticks(axes: Axes, rates: Sequence[float]) -> None:
    """Name the groups at 0, 1, 2, ... by their rates."""
    axes.set_xticks(range(len(rates)), [f"{rate:g} of the tokens" for rate in rates])
    axes.grid(visible=False, axis="x")


def outcomes_at(
    report: EvaluationReport, router: Router, selection: Selected, rates: Sequence[float]
) -> list[Outcome]:
    """The outcome at each rate; none at all if one is missing."""
    found = [report.outcome(router, selection, rate=rate) for rate in rates]
    known = [outcome for outcome in found if outcome is not None]
    return known if len(known) == len(rates) else []
