"""An evaluation as pictures, for a talk: one message each, legible from the last row.

matplotlib is an optional dependency and is imported when something is drawn. No pyplot: nothing
global is touched, and no display is needed.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pipelines.evaluation.plot_style import (
    COLOURS,
    SHADES,
    STYLE,
    bar_places,
    bar_width,
    rate_ticks,
)
from pipelines.evaluation.tables import ROUTER_NAMES, SELECTION_NAMES
from schemas.evaluation import EvaluationReport, Outcome, Router, Selected

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["require_plots", "write_plots"]

_SIZE_IN = (10.0, 5.625)
"""16:9, as slides are."""
_DPI = 160
_MARGIN_IN = 0.1
_MISSING = "pictures need matplotlib, which is the extra 'plots': pip install 'infotok[plots]'"
_MEASURES = (("psnr_db", "Mean PSNR of the clips"), ("psnr_pooled_db", "PSNR of the pooled error"))


def require_plots() -> None:
    """Make sure that there can be pictures, before hours of work.

    Raises:
        ValueError: If matplotlib is not installed; the message names the extra.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError(_MISSING)


def write_plots(report: EvaluationReport, folder: Path) -> list[Path]:
    """Draw everything that the evaluation has the numbers for.

    Args:
        report: From here or from a JSON file.
        folder: Created if absent; files of the same names are replaced.

    Raises:
        ValueError: If matplotlib is not installed.
    """
    require_plots()
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    drawings: dict[str, Callable[[EvaluationReport, Figure], bool]] = {
        "rate_distortion.png": _rate_distortion,
        "routers.png": _routers,
        "selections.png": _selections,
        "tokens.png": _tokens,
        "clips.png": _clips,
    }
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    with rc_context(cast("Any", STYLE)):
        for name, draw in drawings.items():
            layout = ConstrainedLayoutEngine(w_pad=_MARGIN_IN, h_pad=_MARGIN_IN)
            figure = Figure(figsize=_SIZE_IN, layout=layout)
            if draw(report, figure):
                figure.savefig(folder / name, dpi=_DPI)
                written.append(folder / name)
    return written


def _rate_distortion(report: EvaluationReport, figure: Figure) -> bool:
    """Figure 4 of the paper."""
    kind = report.grid_selection
    name = SELECTION_NAMES[kind]
    kinds: list[tuple[Router, Selected, str, dict[str, Any]]] = [
        ("optimal_psnr", kind, f"optimal search, {name}", {"linestyle": ":", "marker": "."}),
        ("global_elbo", "information", "ELBO router, information", {"linewidth": 3}),
        ("static", "information", "same rate, information", {"linewidth": 2}),
        ("search", kind, f"threshold search, {name}", {"linestyle": "none", "marker": "D"}),
        ("static", "jump", "same rate, Jump", {"linestyle": "--"}),
        ("static", "r2l", "same rate, R2L", {"linestyle": "--"}),
    ]
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (key, title) in zip(panels, _MEASURES, strict=True):
        for router, selection, label, style in kinds:
            if router == "optimal_psnr" and key == "psnr_pooled_db":
                router = "optimal_error"
            line = _line(report, router, selection)
            if not line:
                continue
            by_rule = router == "static" and selection != "information"
            colour = COLOURS[selection if by_rule else router]
            axes.plot(
                [outcome.bpp16 for outcome in line],
                [getattr(outcome, key) for outcome in line],
                **{"marker": "o", "markersize": 7, "linewidth": 2, "color": colour} | style,
                label=label,
            )
        axes.set(title=title, xlabel="bits per 16 pixels (BPP16)")
    panels[0].set_ylabel("PSNR, dB")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return True


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


def _routers(report: EvaluationReport, figure: Figure) -> bool:
    """What deciding clip by clip is worth, and what it costs."""
    kind = report.grid_selection
    rates = [r for r in report.rates if r < 1 and report.outcome("static", kind, rate=r)]
    routers: list[Router] = ["global_elbo", "global_elbo_paper", "search", "optimal_error"]
    lines = {router: _at_rates(report, router, kind, rates) for router in routers}
    lines = {router: line for router, line in lines.items() if line}
    if not lines:
        return False
    bases = _at_rates(report, "static", kind, rates)
    axes = figure.subplots()
    for router, places in bar_places(list(lines), len(rates)).items():
        line = lines[router]
        gains = [
            item.psnr_pooled_db - base.psnr_pooled_db
            for item, base in zip(line, bases, strict=True)
        ]
        passes = sum(map(_passes, line)) / len(line)
        name = "optimal search" if router == "optimal_error" else ROUTER_NAMES[router]
        label = f"{name}: {passes:.3g} network passes"
        bars = axes.bar(
            places, gains, 0.9 * bar_width(len(lines)), color=COLOURS[router], label=label
        )
        axes.bar_label(bars, fmt="%+.2f", fontsize=11, padding=2)
    axes.axhline(0, color="#888888", linewidth=1)
    axes.margins(y=0.15)
    rate_ticks(axes, rates)
    axes.set(title="Gain over the same rate for all", ylabel="PSNR of the pooled error, dB")
    figure.legend(loc="outside lower center", ncols=2)
    return True


def _selections(report: EvaluationReport, figure: Figure) -> bool:
    """Which tokens to keep matters most."""
    rates = [rate for rate in report.rates if rate < 1]
    selections: list[Selected] = ["r2l", "jump", "information"]
    routers: list[Router] = ["static", "global_elbo"]
    lines = {
        (router, selection): _at_rates(report, router, selection, rates)
        for selection in selections
        for router in routers
    }
    if not all(lines.values()):
        return False
    axes = figure.subplots()
    base = math.floor(min(item.psnr_db for line in lines.values() for item in line)) - 1
    for key, places in bar_places(list(lines), len(rates)).items():
        router, selection = key
        uniform = router == "static"
        bars = axes.bar(
            places,
            [item.psnr_db - base for item in lines[key]],
            0.9 * bar_width(len(lines)),
            bottom=base,
            facecolor="white" if uniform else COLOURS[selection],
            edgecolor=COLOURS[selection],
            linewidth=1.6,
            label=f"{SELECTION_NAMES[selection]}, {'same rate' if uniform else 'ELBO router'}",
        )
        texts = [f"{item.psnr_db:.1f}" for item in lines[key]]
        axes.bar_label(bars, labels=texts, fontsize=11, padding=2)
    rate_ticks(axes, rates)
    axes.margins(y=0.1)
    axes.set_ylim(bottom=base)
    axes.set(title="Which tokens are kept, and how many of each clip", ylabel="mean PSNR, dB")
    figure.legend(loc="outside lower center", ncols=3)
    return True


def _tokens(report: EvaluationReport, figure: Figure) -> bool:
    """Who gets the tokens."""
    rates = [rate for rate in report.rates if rate < 1]
    line = _at_rates(report, "global_elbo", "information", rates)
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


def _clips(report: EvaluationReport, figure: Figure) -> bool:
    """Every clip has its own curve; the router moves along it."""
    kind, rates = report.grid_selection, [rate for rate in report.rates if rate < 1]
    if not any(outcome.router == "search" for outcome in report.outcomes) or not rates:
        return False
    rate = min(rates, key=lambda value: abs(value - 0.5))
    axes = figure.subplots()
    for clip in report.clips:
        curve = sorted(
            (point.num_tokens / clip.cells, point.psnr_db)
            for point in clip.points
            if point.selection in ("all", kind)
        )
        axes.plot(*zip(*curve, strict=True), color="#bbbbbb", linewidth=1.3, zorder=1)
    routers: list[Router] = ["static", "global_elbo"]
    for router in routers:
        for outcome in _at_rates(report, router, kind, [rate]):
            pairs = list(zip(report.clips, outcome.num_tokens, strict=True))
            axes.scatter(
                [count / clip.cells for clip, count in pairs],
                [clip.point(kind, count).psnr_db for clip, count in pairs],
                s=80,
                zorder=2,
                edgecolor="white",
                color=COLOURS[router],
                label=f"{ROUTER_NAMES[router]}, {rate:g} of the tokens",
            )
    axes.set(
        title="Every clip has its own curve",
        xlabel="share of tokens kept",
        ylabel="PSNR of the clip, dB",
    )
    figure.legend(loc="outside lower center", ncols=2)
    return True


def _at_rates(
    report: EvaluationReport, router: Router, selection: Selected, rates: Sequence[float]
) -> list[Outcome]:
    """The outcome at each rate; none at all if one is missing."""
    found = [report.outcome(router, selection, rate=rate) for rate in rates]
    known = [outcome for outcome in found if outcome is not None]
    return known if len(known) == len(rates) else []


def _passes(outcome: Outcome) -> float:
    return sum(outcome.encoder_passes + outcome.decoder_passes) / len(outcome.num_tokens)
