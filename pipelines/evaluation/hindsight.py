"""What could have been: the optimal allocation, and the search for a threshold, from real decodes.

Both choose among measured points of each clip. The optimum spends at most what `global_elbo` spent
at the same rate, and has the points of all routers to choose from. The search goes over the grid
alone, as a tokenizer without a router would (ElasticTok).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from infotok_core.allocation import Curve, optimal_allocation, search_budget, search_threshold
from infotok_core.metrics import psnr_db
from pipelines.evaluation.analysis import Clip
from pipelines.evaluation.routing import Assignment, PointKey, grid_tokens, point_key
from pipelines.evaluation.settings import EvaluationConfig
from schemas.evaluation import Point, Router

__all__ = ["hindsight_assignments"]

Points = Sequence[Mapping[PointKey, Point]]
"""What was measured of each clip."""

_Cost = Callable[[Point], float]


def hindsight_assignments(
    clips: Sequence[Clip],
    points: Points,
    routed: Sequence[Assignment],
    config: EvaluationConfig,
) -> list[Assignment]:
    """Optimum and search for each rate below 1, and the search for each threshold asked for.

    Args:
        clips: In order.
        points: Everything measured so far: the grid at least.
        routed: For what `global_elbo` spent.
    """
    budgets = {
        item.rate_target: sum(item.num_tokens)
        for item in routed
        if item.router == "global_elbo" and item.selection == config.grid_selection
    }
    grids = [
        _curve(clip, mine, grid_tokens(clip, config), config, _mse)
        for clip, mine in zip(clips, points, strict=True)
    ]
    found: list[Assignment] = []
    for rate, budget in budgets.items():
        if rate is None or rate == 1:
            continue
        # A grid coarser than the rate cannot meet it.
        if sum(curve.tokens[0] for curve in grids) <= budget:
            found.append(_search(grids, search_threshold(grids, budget), rate, config))
        others = [item for item in [*routed, *found] if item.selection == config.grid_selection]
        found += _optima(clips, points, rate, budget, others, config)
    for threshold_db in config.search_psnr_db:
        found.append(_search(grids, _mse_of(threshold_db), None, config))
    return found


def _optima(
    clips: Sequence[Clip],
    points: Points,
    rate: float,
    budget: int,
    others: Sequence[Assignment],
    config: EvaluationConfig,
) -> Iterator[Assignment]:
    values = sum(_values(clip) for clip in clips)
    costs: dict[Router, _Cost] = {
        "optimal_error": lambda point: float(point.squared_error),
        "optimal_psnr": lambda point: -point.psnr_db,
    }
    for router, cost in costs.items():
        curves = [
            _curve(clip, mine, _measured_tokens(mine, config), config, cost)
            for clip, mine in zip(clips, points, strict=True)
        ]
        best = optimal_allocation(curves, budget, alternatives=[item.num_tokens for item in others])
        pooled = router == "optimal_error"
        yield Assignment(
            router=router,
            selection=config.grid_selection,
            rate_target=rate,
            num_tokens=best.tokens,
            # The one with all tokens is the analysis itself.
            decoder_passes=tuple(len(curve.tokens) for curve in curves),
            bound_db=psnr_db(best.bound, values) if pooled else -best.bound / len(clips),
        )


def _search(
    grids: Sequence[Curve], threshold: float, rate: float | None, config: EvaluationConfig
) -> Assignment:
    tokens: list[int] = []
    passes: list[int] = []
    # Ranking by information takes the analysis' own decode before the search begins.
    first = 1 if config.grid_selection == "information" else 0
    for curve in grids:
        index, calls = search_budget(
            len(curve.tokens), lambda i, costs=curve.costs: costs[i] <= threshold
        )
        tokens.append(curve.tokens[index])
        passes.append(first + calls)
    return Assignment(
        router="search",
        selection=config.grid_selection,
        rate_target=rate,
        threshold_db=psnr_db(threshold, 1),
        num_tokens=tuple(tokens),
        decoder_passes=tuple(passes),
    )


def _curve(
    clip: Clip,
    points: Mapping[PointKey, Point],
    tokens: Sequence[int],
    config: EvaluationConfig,
    cost: _Cost,
) -> Curve:
    costs = (cost(points[point_key(clip, config.grid_selection, count)]) for count in tokens)
    return Curve(tuple(tokens), tuple(costs))


def _measured_tokens(points: Mapping[PointKey, Point], config: EvaluationConfig) -> list[int]:
    kinds = ("all", config.grid_selection)
    return sorted(count for kind, count in points if kind in kinds)


def _mse(point: Point) -> float:
    # From the PSNR and not from the sum: clips of any size share the threshold.
    return _mse_of(point.psnr_db)


def _mse_of(psnr: float) -> float:
    return 255**2 / 10 ** (psnr / 10)


def _values(clip: Clip) -> int:
    frames, height, width = clip.shape
    return frames * height * width * 3
