"""Who gets how many tokens, when the error of every window at several budgets is known.

What a router would do with hindsight, to judge routers by: the allocation of least total cost, and
the search of nested tokenizers (ElasticTok) for the smallest budget that meets a threshold.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Allocation",
    "Curve",
    "optimal_allocation",
    "search_budget",
    "search_threshold",
]


_SEARCHED = 1_500_000_000
"""Entries of a table that are filled within ten seconds."""


@dataclass(frozen=True, slots=True)
class Curve:
    """What a window costs (squared error, or minus its PSNR) at some budgets.

    Raises:
        ValueError: If there is no budget, they do not grow, or a cost is not finite.
    """

    tokens: tuple[int, ...]
    """Growing, each >= 1."""
    costs: tuple[float, ...]
    """Of each budget; may rise in between, as real ones do."""

    def __post_init__(self) -> None:
        rising = all(low < high for low, high in zip(self.tokens, self.tokens[1:], strict=False))
        if not self.tokens or self.tokens[0] < 1 or not rising:
            raise ValueError(f"budgets of a curve must grow from at least 1: {self.tokens}")
        if len(self.costs) != len(self.tokens) or not all(map(math.isfinite, self.costs)):
            raise ValueError(f"each budget needs a finite cost: {self.costs}")

    def hull(self) -> Curve:
        """Its lower convex envelope from the first budget to the cheapest: ever less is gained."""
        cheapest = self.costs.index(min(self.costs))
        kept: list[tuple[int, float]] = []
        pairs = zip(self.tokens[: cheapest + 1], self.costs[: cheapest + 1], strict=True)
        for tokens, cost in pairs:
            while len(kept) > 1 and not _below(kept[-2], kept[-1], (tokens, cost)):
                kept.pop()
            kept.append((tokens, cost))
        return Curve(tuple(n for n, _ in kept), tuple(cost for _, cost in kept))

    def cost(self, tokens: int) -> float:
        """What one of its budgets costs.

        Raises:
            ValueError: If it is none of its budgets.
        """
        place = bisect.bisect_left(self.tokens, tokens)
        if place == len(self.tokens) or self.tokens[place] != tokens:
            raise ValueError(f"{tokens} tokens are none of the budgets {self.tokens}")
        return self.costs[place]


@dataclass(frozen=True, slots=True)
class Allocation:
    """A budget dealt out to windows, each on a budget of its own curve."""

    tokens: tuple[int, ...]
    """Of each window."""
    cost: float
    """Their total."""
    bound: float
    """No choice of budgets from the curves that spends no more costs less than this."""


def optimal_allocation(
    curves: Sequence[Curve], budget: int, *, alternatives: Iterable[Sequence[int]] = ()
) -> Allocation:
    """The cheapest allocation of at most ``budget`` tokens; of many windows up to one step of one.

    Every window starts at its first budget; tokens then go wherever one more saves most, along the
    convex envelope of each curve. What the last step no longer fits into is filled up with whatever
    measured budgets still fit. The bound takes that last step in part, on a straight line. While a
    table of windows x budget stays small (a hundred windows of 9216 tokens and 16 points), it is
    searched as well, and nothing is cheaper.

    Args:
        curves: One per window.
        budget: Tokens of all windows.
        alternatives: Allocations to be no worse than: a budget of its curve for each window. Those
            that spend more than ``budget`` are passed over.

    Raises:
        ValueError: If the first budgets alone exceed the budget, or an alternative is not on the
            curves.
    """
    hulls = [curve.hull() for curve in curves]
    tokens = [hull.tokens[0] for hull in hulls]
    left = budget - sum(tokens)
    if left < 0:
        raise ValueError(f"a budget of {budget} is below the {sum(tokens)} tokens of the least")
    saved = 0.0
    steps = sorted(step for place, hull in enumerate(hulls) for step in _steps(place, hull))
    for slope, window, _, step in steps:
        if step > left:
            saved = -slope * left
            break
        tokens[window] += step
        left -= step
    bound = _total(curves, tokens) - saved
    _fill(curves, tokens, left)
    fitting = [tuple(other) for other in alternatives if sum(other) <= budget]
    if sum(len(curve.tokens) for curve in curves) * (budget + 1) <= _SEARCHED:
        fitting.append(_searched_table(curves, budget))
    best = min([tuple(tokens), *fitting], key=lambda other: _total(curves, other))
    return Allocation(tokens=best, cost=_total(curves, best), bound=bound)


def _searched_table(curves: Sequence[Curve], budget: int) -> tuple[int, ...]:
    """The cheapest allocation, by the least cost of the first windows at every budget."""
    least = np.zeros(budget + 1)
    chosen: list[NDArray[np.uint16]] = []
    for curve in curves:
        following = np.full(budget + 1, np.inf)
        choice = np.zeros(budget + 1, np.uint16)
        for index, (count, cost) in enumerate(zip(curve.tokens, curve.costs, strict=True)):
            if count > budget:
                break
            offered = least[: budget + 1 - count] + cost
            better = offered < following[count:]
            following[count:][better] = offered[better]
            choice[count:][better] = index
        least = following
        chosen.append(choice)
    tokens: list[int] = []
    left = budget
    for curve, choice in zip(reversed(curves), reversed(chosen), strict=True):
        tokens.append(curve.tokens[choice[left]])
        left -= tokens[-1]
    return tuple(reversed(tokens))


def _steps(window: int, hull: Curve) -> Iterator[tuple[float, int, int, int]]:
    """Cost per token, window, number, and tokens of each step along its envelope, in order."""
    slope = -math.inf
    corners = zip(hull.tokens, hull.costs, strict=True)
    for number, ((n0, c0), (n1, c1)) in enumerate(itertools.pairwise(corners)):
        # Rounding must not put a step before the one that it builds on.
        slope = max(slope, (c1 - c0) / (n1 - n0))
        yield slope, window, number, n1 - n0


def _fill(curves: Sequence[Curve], tokens: list[int], left: int) -> None:
    """Spend ``left`` tokens, as far as measured budgets that save something fit."""
    while True:
        offers = [
            ((cost - curve.cost(tokens[window])) / (count - tokens[window]), window, count)
            for window, curve in enumerate(curves)
            for count, cost in zip(curve.tokens, curve.costs, strict=True)
            if 0 < count - tokens[window] <= left and cost < curve.cost(tokens[window])
        ]
        if not offers:
            return
        _, window, count = min(offers)
        left -= count - tokens[window]
        tokens[window] = count


def _total(curves: Sequence[Curve], tokens: Sequence[int]) -> float:
    return sum(curve.cost(count) for curve, count in zip(curves, tokens, strict=True))


def search_budget(count: int, passes: Callable[[int], bool]) -> tuple[int, int]:
    """Binary search for the first of ``count`` growing budgets that passes; the last one if none.

    It is the first if passing is monotone; else it is one that passes while the one before it does
    not, or the last.

    Args:
        count: Budgets, >= 1.
        passes: Called with an index in 0 .. count - 2; one decoder pass each.

    Returns:
        The index, and how often ``passes`` was called: floor or ceil of log2(count).
    """
    low, high, calls = 0, count - 1, 0
    while low < high:
        middle = (low + high) // 2
        calls += 1
        if passes(middle):
            high = middle
        else:
            low = middle + 1
    return low, calls


def search_threshold(curves: Sequence[Curve], budget: int) -> float:
    """The strictest cost threshold with which `search_budget` spends at most ``budget`` tokens.

    Args:
        curves: One per window; the search goes over the budgets of each.
        budget: Tokens of all windows.

    Raises:
        ValueError: If no threshold does: the first budgets alone exceed it.
    """
    candidates = sorted({cost for curve in curves for cost in curve.costs})

    def fits(threshold: float) -> bool:
        return sum(_searched(curve, threshold) for curve in curves) <= budget

    if not fits(candidates[-1]):
        raise ValueError(f"a budget of {budget} is below what the least of every window takes")
    # Monotone but for curves that rise in between: the last steps make sure.
    place = bisect.bisect_left(candidates, True, key=fits)
    place = min(place, len(candidates) - 1)
    while not fits(candidates[place]):
        place += 1
    return candidates[place]


def _searched(curve: Curve, threshold: float) -> int:
    index, _ = search_budget(len(curve.tokens), lambda i: curve.costs[i] <= threshold)
    return curve.tokens[index]


def _below(first: tuple[int, float], middle: tuple[int, float], last: tuple[int, float]) -> bool:
    """Whether the middle corner lies strictly below the line between its neighbours."""
    (n0, c0), (n1, c1), (n2, c2) = first, middle, last
    return (c1 - c0) * (n2 - n0) < (c2 - c0) * (n1 - n0)
