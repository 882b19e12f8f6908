"""The curves among the pictures: quality over bits, tokens over information, clip by clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipelines.evaluation.plot_style import COLOURS, MEASURES, SHADES, outcomes_at
from pipelines.evaluation.tables import ROUTER_NAMES, SELECTION_NAMES
from schemas.evaluation import EvaluationReport, Outcome, Router, Selected

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_clips", "draw_router_curves", "draw_selection_curves", "draw_tokens"]

_Curve = tuple[Router, Selected, str, dict[str, Any]]
"""Whose, of which tokens, its name, and how it is drawn."""


def draw_router_curves(report: EvaluationReport, figure: Figure) -> bool:
    """Figure 4 of the paper: how many tokens of each clip.

    R2L, 5 dB below, would leave the differences between the others no room.
    """
    kind = report.grid_selection
    curves: list[_Curve] = [
        ("global_elbo", kind, ROUTER_NAMES["global_elbo"], {"linewidth": 3.5}),
        ("static", kind, ROUTER_NAMES["static"], {"linewidth": 2.5, "linestyle": "--"}),
        ("token_threshold", "information", ROUTER_NAMES["token_threshold"], {}),
        ("optimal_error", kind, "optimal search", {"linestyle": ":", "marker": "."}),
        ("search", kind, "threshold search (ElasticTok)", {"linestyle": "none", "marker": "D"}),
    ]
    colours = [COLOURS[router] for router, *_ in curves]
    return _draw_curves(report, figure, curves, colours)


def draw_selection_curves(report: EvaluationReport, figure: Figure) -> bool:
    """The same of which tokens are kept."""
    if not any(outcome.selection == "r2l" for outcome in report.outcomes):
        return False
    selections: list[Selected] = ["information", "jump", "r2l"]
    styles: list[tuple[Router, str, dict[str, Any]]] = [
        ("global_elbo", "ELBO router", {}),
        ("static", "same rate", {"linestyle": "--", "markerfacecolor": "white"}),
    ]
    curves: list[_Curve] = [
        (router, selection, f"{SELECTION_NAMES[selection]}, {name}", style)
        for selection in selections
        for router, name, style in styles
    ]
    return _draw_curves(report, figure, curves, [COLOURS[selection] for _, selection, *_ in curves])


def _draw_curves(
    report: EvaluationReport, figure: Figure, curves: Sequence[_Curve], colours: Sequence[str]
) -> bool:
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (key, title) in zip(panels, MEASURES, strict=True):
        for (router, selection, label, style), colour in zip(curves, colours, strict=True):
            line = _line(report, _best(router, key), selection)
            if not line:
                continue
            axes.plot(
                [outcome.bpp16 for outcome in line],
                [getattr(outcome, key) for outcome in line],
                **{"marker": "o", "markersize": 8, "linewidth": 2, "color": colour} | style,
                label=label,
            )
        axes.set(title=title, xlabel="bits per 16 pixels (BPP16)")
    panels[0].set_ylabel("PSNR, dB")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3 if len(labels) > 4 else 2)
    return True


def _best(router: Router, key: str) -> Router:
    """The optimum of what is shown."""
    return "optimal_psnr" if router == "optimal_error" and key == "psnr_db" else router


def _line(report: EvaluationReport, router: Router, selection: Selected) -> list[Outcome]:
    found = [
        outcome
        for outcome in report.outcomes
        if (outcome.router, outcome.selection) == (router, selection) and outcome.rate_target
    ]
    if router in ("optimal_error", "optimal_psnr") and found:
        # At rate 1 there is nothing to choose.
        found += [item for item in [report.outcome("static", selection, rate=1.0)] if item]
    return sorted(found, key=lambda outcome: outcome.bpp16)


def draw_tokens(report: EvaluationReport, figure: Figure) -> bool:
    """Who gets the tokens."""
    rates = [rate for rate in report.rates if rate < 1]
    line = outcomes_at(report, "global_elbo", "information", rates)
    if not line:
        return False
    axes = figure.subplots()
    for index, (rate, outcome) in enumerate(zip(rates, line, strict=True)):
        pairs = sorted(
            (clip.elbo, count / clip.cells)
            for clip, count in zip(report.clips, outcome.num_tokens, strict=True)
        )
        colour = SHADES[min(index, len(SHADES) - 1)]
        axes.plot(*zip(*pairs, strict=True), marker="o", markersize=6, linewidth=1.5, color=colour,
                  label=f"{rate:g} of the tokens")  # fmt: skip
        axes.axhline(rate, color=colour, linewidth=1.5, linestyle=":")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.05)
    axes.set(
        title="Predictable clips get fewer tokens",
        xlabel="information of the clip (mean absolute error, pixels in [-1, 1])",
        ylabel="share of tokens kept",
    )
    figure.legend(loc="outside lower center", ncols=4, title="ELBO router; dotted: the mean asked")
    return True


def draw_clips(report: EvaluationReport, figure: Figure) -> bool:
    """Every clip has its own curve; the router moves along it."""
    kind, rates = report.grid_selection, [rate for rate in report.rates if rate < 1]
    if not any(outcome.router == "search" for outcome in report.outcomes) or not rates:
        return False
    rate = min(rates, key=lambda value: abs(value - 0.5))
    axes = figure.subplots()
    for place, clip in enumerate(report.clips):
        curve = sorted(
            (point.num_tokens / clip.cells, point.psnr_db)
            for point in clip.points
            if point.selection in ("all", kind)
        )
        axes.plot(
            *zip(*curve, strict=True),
            color="#bbbbbb",
            linewidth=1.3,
            zorder=1,
            label=None if place else "a clip at any rate",
        )
    routers: list[Router] = ["static", "global_elbo"]
    for router in routers:
        for outcome in outcomes_at(report, router, kind, [rate]):
            pairs = list(zip(report.clips, outcome.num_tokens, strict=True))
            axes.scatter(
                [count / clip.cells for clip, count in pairs],
                [clip.point(kind, count).psnr_db for clip, count in pairs],
                s=80,
                zorder=2,
                edgecolor="white",
                color=COLOURS[router],
                label=f"{ROUTER_NAMES[router]}, mean {rate:g}",
            )
    axes.set(
        title="Every clip has its own curve",
        xlabel="share of tokens kept",
        ylabel="PSNR of the clip, dB",
    )
    figure.legend(loc="outside lower center", ncols=3)
    return True
