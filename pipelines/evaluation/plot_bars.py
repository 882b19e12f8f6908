"""The bars among the pictures: what a router gains, and what a selection."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pipelines.evaluation.plot_style import (
    COLOURS,
    MEASURES,
    bar_places,
    bar_width,
    outcomes_at,
    rate_ticks,
)
from pipelines.evaluation.tables import ROUTER_NAMES, SELECTION_NAMES
from schemas.evaluation import EvaluationReport, Outcome, Router, Selected

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_gains", "draw_mean_gains", "draw_selections"]


def draw_gains(report: EvaluationReport, figure: Figure) -> bool:
    """What deciding clip by clip is worth, and what it costs."""
    return _draw_gains(report, figure, "psnr_pooled_db")


def draw_mean_gains(report: EvaluationReport, figure: Figure) -> bool:
    """The same where a decibel of a good clip counts as much as one of a bad clip."""
    return _draw_gains(report, figure, "psnr_db")


def _draw_gains(report: EvaluationReport, figure: Figure, key: str) -> bool:
    kind = report.grid_selection
    rates = [r for r in report.rates if r < 1 and report.outcome("static", kind, rate=r)]
    best: Router = "optimal_psnr" if key == "psnr_db" else "optimal_error"
    kinds: list[tuple[Router, Selected]] = [
        ("global_elbo", kind), ("global_elbo_paper", kind), ("token_threshold", "information"),
        ("global_latent", "latent"), ("search", kind), (best, kind),
    ]  # fmt: skip
    lines = {router: outcomes_at(report, router, selection, rates) for router, selection in kinds}
    lines = {router: line for router, line in lines.items() if line}
    if not lines:
        return False
    bases = outcomes_at(report, "static", kind, rates)
    axes = figure.subplots()
    for router, places in bar_places(list(lines), len(rates)).items():
        line = lines[router]
        gains = [
            getattr(item, key) - getattr(base, key)
            for item, base in zip(line, bases, strict=True)
        ]  # fmt: skip
        passes = sum(map(_passes, line)) / len(line)
        name = "optimal search" if router == best else ROUTER_NAMES[router]
        label = f"{name}: {passes:.3g} network pass{'es' if passes > 1 else ''}"
        bars = axes.bar(
            places, gains, 0.9 * bar_width(len(lines)), color=COLOURS[router], label=label
        )
        size = 11 if len(lines) < 5 else 9.5
        axes.bar_label(bars, labels=list(map(_signed, gains)), fontsize=size, padding=2)
    axes.axhline(0, color="#888888", linewidth=1)
    axes.margins(y=0.15)
    rate_ticks(axes, rates)
    axes.set(title="Gain over the same rate for all", ylabel=f"{dict(MEASURES)[key]}, dB")
    figure.legend(loc="outside lower center", ncols=2)
    return True


def draw_selections(report: EvaluationReport, figure: Figure) -> bool:
    """Which tokens to keep matters most."""
    rates = [rate for rate in report.rates if rate < 1]
    selections: list[Selected] = ["r2l", "jump", "information"]
    routers: list[Router] = ["static", "global_elbo"]
    lines = {
        (router, selection): outcomes_at(report, router, selection, rates)
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


def _passes(outcome: Outcome) -> float:
    return sum(outcome.encoder_passes + outcome.decoder_passes) / len(outcome.num_tokens)


def _signed(gain: float) -> str:
    """With the minus sign that the axis has."""
    return f"{gain:+.2f}".replace("-", "\N{MINUS SIGN}")
