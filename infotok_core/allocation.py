"""Who gets how many tokens, when the error of every window at several budgets is known.

What a router would do with hindsight, to judge routers by: the allocation of least total cost, and
the search of nested tokenizers (ElasticTok) for the smallest budget that meets a threshold.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = [
    "Allocation",
    "Curve",
    "optimal_allocation",
    "search_budget",
    "search_threshold",
]


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

    def at(self, tokens: int) -> float:
        """Its cost, on straight lines between its budgets; that of the last one beyond it.

        Raises:
            ValueError: If the budget is below the first.
        """
        if tokens < self.tokens[0]:
            raise ValueError(f"the curve starts at {self.tokens[0]} tokens, not at {tokens}")
        place = bisect.bisect_right(self.tokens, tokens)
        if place == len(self.tokens):
            return self.costs[-1]
        low, high = self.tokens[place - 1], self.tokens[place]
        share = (tokens - low) / (high - low)
        return self.costs[place - 1] + share * (self.costs[place] - self.costs[place - 1])


@dataclass(frozen=True, slots=True)
class Allocation:
    """A budget dealt out to windows."""

    tokens: tuple[int, ...]
    """Of each window."""
    cost: float
    """Their total by the convex envelopes: no allocation of this budget costs less."""


def optimal_allocation(curves: Sequence[Curve], budget: int) -> Allocation:
    """The allocation of at most ``budget`` tokens with the least total cost.

    Every window starts at its first budget; tokens then go wherever one more saves most, along the
    convex envelope of each curve. All windows but one end on a corner of their envelope, that is,
    on a budget at which their cost was really measured; the last one may stop in between, where its
    cost is the straight line's. So the total is a lower bound for *any* choice of one measured
    budget per window that spends no more: in particular for every router's, if its budgets are
    among those of the curves.

    Args:
        curves: One per window.
        budget: Tokens of all windows.

    Raises:
        ValueError: If the first budgets alone exceed it.
    """
    hulls = [curve.hull() for curve in curves]
    tokens = [hull.tokens[0] for hull in hulls]
    left = budget - sum(tokens)
    if left < 0:
        raise ValueError(f"a budget of {budget} is below the {sum(tokens)} tokens of the least")
    segments = sorted(
        ((hull.costs[i + 1] - hull.costs[i]) / (hull.tokens[i + 1] - hull.tokens[i]), window, i)
        for window, hull in enumerate(hulls)
        for i in range(len(hull.tokens) - 1)
    )
    for _, window, i in segments:
        hull = hulls[window]
        # Segments of a window come in order, since its envelope is convex.
        step = min(hull.tokens[i + 1] - hull.tokens[i], left)
        tokens[window] += step
        left -= step
        if not left:
            break
    cost = sum(hull.at(count) for hull, count in zip(hulls, tokens, strict=True))
    return Allocation(tokens=tuple(tokens), cost=cost)


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
