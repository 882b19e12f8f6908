"""Who gets how many tokens, by each router, from the information of all clips alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from infotok_core.router import Selection
from pipelines.evaluation.analysis import Clip
from pipelines.evaluation.settings import EvaluationConfig
from schemas.evaluation import PointSelection, Router, Selected
from schemas.rates import RateRule, TokenDealer, num_tokens, solve_rule
from schemas.statistics import ElboAccumulator, ElboBins
from schemas.units import window_sum

__all__ = ["Assignment", "PointKey", "grid_tokens", "point_key", "routed_assignments"]

PointKey = tuple[PointSelection, int]
"""A decode of a clip: which tokens, and how many."""

_SELECTIONS: tuple[Selection, ...] = ("information", "r2l", "jump")


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What a router gives every clip, and what finding out cost."""

    router: Router
    selection: Selected
    rate_target: float | None
    num_tokens: tuple[int, ...]
    decoder_passes: tuple[int, ...]
    """Until the tokens are chosen, the analysis pass included; see `CONVENTIONS`."""
    threshold_db: float | None = None
    bound_db: float | None = None


def point_key(clip: Clip, selection: Selected, count: int) -> PointKey:
    """All tokens are the same tokens under every selection."""
    return ("all" if count == clip.cells else selection, count)


def grid_tokens(clip: Clip, config: EvaluationConfig) -> tuple[int, ...]:
    """The budgets of the rates 1/n .. n/n, growing."""
    steps = config.grid_points
    return tuple(sorted({num_tokens(k / steps, clip.cells) for k in range(1, steps + 1)}))


def routed_assignments(clips: Sequence[Clip], config: EvaluationConfig) -> list[Assignment]:
    """Every router, selection and rate of the sweep that needs no decode to decide."""
    selections = _SELECTIONS if config.sweep == "full" else _SELECTIONS[:1]
    bins = _bins(clips)
    return [
        Assignment(
            router=router,
            selection=selection,
            rate_target=rate,
            num_tokens=counts,
            decoder_passes=(_decoder_passes(router, selection),) * len(clips),
        )
        for router, rate, counts in _counts(clips, bins, config)
        for selection in selections
    ] + list(_predicted_assignments(clips, config))


def _predicted_assignments(clips: Sequence[Clip], config: EvaluationConfig) -> Iterator[Assignment]:
    """What a corpus gets that trusts its latent router: how many, and which, by predictions."""
    predictions = [clip.prediction.information_thw for clip in clips if clip.prediction]
    if len(predictions) < len(clips):
        return
    sums = [window_sum(information_thw) for information_thw in predictions]
    accumulator = ElboAccumulator()
    for total, clip in zip(sums, clips, strict=True):
        accumulator.add(total, clip.cells)
    for rate in config.rates:
        rules: dict[Router, RateRule] = {
            "static": RateRule.static(rate),
            "global_latent": solve_rule(
                accumulator.freeze(), rate=rate, min_rate=config.min_rate, exponent=config.exponent
            ),
        }
        for router, rule in rules.items():
            dealer = TokenDealer(rule)
            counts = (dealer.deal(s, c.cells)[0] for s, c in zip(sums, clips, strict=True))
            yield Assignment(
                router=router,
                selection="latent",
                rate_target=rate,
                num_tokens=tuple(counts),
                decoder_passes=(0,) * len(clips),
            )


def _counts(
    clips: Sequence[Clip], bins: ElboBins, config: EvaluationConfig
) -> Iterator[tuple[Router, float, tuple[int, ...]]]:
    for rate in config.rates:
        rules: dict[Router, RateRule] = {
            "static": RateRule.static(rate),
            "global_elbo": solve_rule(
                bins, rate=rate, min_rate=config.min_rate, exponent=config.exponent
            ),
        }
        if config.sweep == "full":
            rules["global_elbo_paper"] = RateRule.paper(bins, rate=rate, min_rate=config.min_rate)
        for router, rule in rules.items():
            # One dealer for the corpus: off the budget by one token at most, however many clips.
            dealer = TokenDealer(rule)
            yield router, rate, tuple(dealer.deal(c.information_sum, c.cells)[0] for c in clips)


def _bins(clips: Sequence[Clip]) -> ElboBins:
    accumulator = ElboAccumulator()
    for clip in clips:
        accumulator.add(clip.information_sum, clip.cells)
    return accumulator.freeze()


def _decoder_passes(router: Router, selection: Selection) -> int:
    # The information of the tokens, for the router or the selection, is what takes a decode.
    return 0 if router == "static" and selection != "information" else 1
