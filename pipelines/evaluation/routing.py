"""Who gets how many tokens, by each router, from the information of all clips alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infotok_core.router import Selection
from pipelines.evaluation.analysis import Clip
from pipelines.evaluation.settings import EvaluationConfig
from schemas.bins import ElboBins
from schemas.dealing import Rule, TokenDealer
from schemas.evaluation import PointSelection, Router, Selected
from schemas.rates import RateRule, num_tokens, solve_rule
from schemas.token_bins import TokenBins
from schemas.token_rules import solve_token_rule
from schemas.window_counts import WindowCounter

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
    return [
        Assignment(
            router=router,
            selection=selection,
            rate_target=rate,
            num_tokens=counts,
            decoder_passes=(_decoder_passes(router, selection),) * len(clips),
        )
        for router, rate, counts in _counts(clips, config)
        # It decides by the token: of another selection its numbers say nothing.
        for selection in (_SELECTIONS[:1] if router == "token_threshold" else selections)
    ] + list(_predicted_assignments(clips, config))


def _predicted_assignments(clips: Sequence[Clip], config: EvaluationConfig) -> Iterator[Assignment]:
    """What a corpus gets that trusts its latent router: how many, and which, by predictions."""
    maps = [clip.prediction.information_thw for clip in clips if clip.prediction]
    if len(maps) < len(clips):
        return
    bins, _ = _counted(maps, None)
    for rate in config.rates:
        rules: dict[Router, Rule] = {
            "static": RateRule.static(rate),
            "global_latent": _proportional(bins, rate, config),
        }
        for router, rule in rules.items():
            yield Assignment(
                router=router,
                selection="latent",
                rate_target=rate,
                num_tokens=_dealt(rule, maps),
                decoder_passes=(0,) * len(clips),
            )


def _counts(
    clips: Sequence[Clip], config: EvaluationConfig
) -> Iterator[tuple[Router, float, tuple[int, ...]]]:
    maps = [clip.information_thw for clip in clips]
    bins, tokens = _counted(maps, config.min_rate)
    assert tokens is not None
    for rate in config.rates:
        rules: dict[Router, Rule] = {
            "static": RateRule.static(rate),
            "global_elbo": _proportional(bins, rate, config),
            "token_threshold": solve_token_rule(tokens, rate=rate),
        }
        if config.sweep == "full":
            rules["global_elbo_paper"] = RateRule.paper(bins, rate=rate, min_rate=config.min_rate)
        for router, rule in rules.items():
            yield router, rate, _dealt(rule, maps)


def _proportional(bins: ElboBins, rate: float, config: EvaluationConfig) -> RateRule:
    return solve_rule(bins, rate=rate, min_rate=config.min_rate, exponent=config.exponent)


def _dealt(rule: Rule, maps: Sequence[NDArray[np.float16]]) -> tuple[int, ...]:
    # One dealer for the corpus: off the budget by one token at most, however many clips.
    dealer = TokenDealer(rule)
    return tuple(dealer.deal(information_thw)[0] for information_thw in maps)


def _counted(
    maps: Sequence[NDArray[np.float16]], token_floor: float | None
) -> tuple[ElboBins, TokenBins | None]:
    counter = WindowCounter(token_floor)
    for information_thw in maps:
        counter.add(information_thw)
    return counter.freeze()


def _decoder_passes(router: Router, selection: Selection) -> int:
    # The information of the tokens, for the router or the selection, is what takes a decode.
    return 0 if router == "static" and selection != "information" else 1
