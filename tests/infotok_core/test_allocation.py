"""Budgets dealt with hindsight: against every other allocation, and against exhaustive search."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infotok_core.allocation import (
    Curve,
    optimal_allocation,
    search_budget,
    search_threshold,
)


@st.composite
def curves(draw: st.DrawFn, *, max_size: int = 6) -> Curve:
    tokens = draw(st.lists(st.integers(1, 60), min_size=1, max_size=max_size, unique=True))
    costs = draw(st.lists(st.floats(-50, 1e6), min_size=len(tokens), max_size=len(tokens)))
    return Curve(tuple(sorted(tokens)), tuple(costs))


@st.composite
def falling_curves(draw: st.DrawFn) -> Curve:
    curve = draw(curves(max_size=9))
    return Curve(curve.tokens, tuple(sorted(curve.costs, reverse=True)))


def total(chosen: tuple[int, ...], among: list[Curve]) -> float:
    return sum(curve.costs[index] for curve, index in zip(among, chosen, strict=True))


@st.composite
def problems(draw: st.DrawFn, *, max_windows: int = 4) -> tuple[list[Curve], int]:
    among = draw(st.lists(curves(max_size=4), min_size=1, max_size=max_windows))
    extra = draw(st.integers(0, 60 * len(among)))
    return among, sum(curve.tokens[0] for curve in among) + extra


def spent(chosen: tuple[int, ...], among: list[Curve]) -> int:
    return sum(curve.tokens[index] for curve, index in zip(among, chosen, strict=True))


def near(cost: float) -> float:
    return 1e-9 * max(1.0, abs(cost))


@given(problems())
def test_the_optimum_keeps_to_the_budget_and_to_what_was_measured(problem: tuple[list[Curve], int]):
    among, budget = problem
    best = optimal_allocation(among, budget)
    assert sum(best.tokens) <= budget
    assert all(n in curve.tokens for n, curve in zip(best.tokens, among, strict=True))
    wanted = sum(curve.cost(n) for n, curve in zip(best.tokens, among, strict=True))
    assert best.cost == pytest.approx(wanted)


@given(problems())
def test_no_choice_within_the_budget_beats_the_bound(problem: tuple[list[Curve], int]):
    among, budget = problem
    best = optimal_allocation(among, budget)
    for chosen in itertools.product(*(range(len(curve.tokens)) for curve in among)):
        if spent(chosen, among) <= budget:
            assert best.bound <= total(chosen, among) + near(best.bound)


@given(problems())
def test_of_a_few_windows_it_is_what_exhaustive_search_finds(problem: tuple[list[Curve], int]):
    among, budget = problem
    choices = itertools.product(*(range(len(curve.tokens)) for curve in among))
    least = min(total(chosen, among) for chosen in choices if spent(chosen, among) <= budget)
    assert optimal_allocation(among, budget).cost == pytest.approx(least, rel=1e-9, abs=1e-9)


@given(problems(max_windows=8))
def test_the_optimum_misses_the_bound_by_less_than_one_step(problem: tuple[list[Curve], int]):
    among, budget = problem
    best = optimal_allocation(among, budget)
    steps = [a - b for curve in among for a, b in itertools.pairwise(curve.hull().costs)]
    assert best.bound <= best.cost + near(best.cost)
    assert best.cost <= best.bound + max([0.0, *steps]) + near(best.cost)


@given(problems(), st.data())
def test_the_optimum_is_no_worse_than_any_alternative(
    problem: tuple[list[Curve], int], data: st.DataObject
):
    among, budget = problem
    others = data.draw(st.lists(st.tuples(*(st.sampled_from(c.tokens) for c in among)), max_size=4))
    best = optimal_allocation(among, budget, alternatives=others)
    assert sum(best.tokens) <= budget
    for other in others:
        if sum(other) <= budget:
            cost = sum(curve.cost(n) for n, curve in zip(other, among, strict=True))
            assert best.cost <= cost + near(cost)


@given(curves())
def test_the_envelope_is_convex_falls_and_lies_below(curve: Curve):
    hull = curve.hull()
    assert hull.tokens[0] == curve.tokens[0]
    assert hull.costs[-1] == min(curve.costs)
    pairs = list(itertools.pairwise(zip(hull.tokens, hull.costs, strict=True)))
    slopes = [(c1 - c0) / (n1 - n0) for (n0, c0), (n1, c1) in pairs]
    assert all(slope < 0 for slope in slopes)
    assert slopes == sorted(slopes)
    for n, cost in zip(curve.tokens, curve.costs, strict=True):
        assert np.interp(n, hull.tokens, hull.costs) <= cost + near(cost)


def test_a_step_that_saves_more_per_token_may_leave_no_room_for_a_better_one():
    small, large = Curve((1, 2), (10.0, 6.0)), Curve((1, 3), (10.0, 3.0))
    best = optimal_allocation([small, large], 4)
    assert (best.tokens, best.cost) == ((1, 3), 13.0)


def test_tokens_go_where_they_save_most():
    steep = Curve((10, 20, 30), (100.0, 10.0, 0.0))
    flat = Curve((10, 20, 30), (5.0, 4.0, 3.9))
    best = optimal_allocation([flat, steep], 50)
    assert (best.tokens, best.cost, best.bound) == ((20, 30), 4.0, 4.0)


def test_what_no_step_of_the_envelope_fits_into_is_filled_up():
    # The envelope of the first goes from 10 to 30 at once; 20 lies above it, but fits.
    best = optimal_allocation([Curve((10, 20, 30), (100.0, 90.0, 0.0))], 25)
    assert best.tokens == (20,)
    assert best.cost == 90
    assert best.bound == pytest.approx(100 - 15 * 5)


def test_tokens_that_help_nobody_are_not_spent():
    assert optimal_allocation([Curve((10, 20), (1.0, 2.0))], 30).tokens == (10,)


def test_a_budget_below_the_least_is_refused():
    with pytest.raises(ValueError, match="below the 10 tokens"):
        optimal_allocation([Curve((10, 20), (2.0, 1.0))], 9)
    with pytest.raises(ValueError, match="below what the least"):
        search_threshold([Curve((10, 20), (2.0, 1.0))], 9)


def test_an_alternative_off_the_curves_is_refused():
    with pytest.raises(ValueError, match="11 tokens are none of the budgets"):
        optimal_allocation([Curve((10, 20), (2.0, 1.0))], 20, alternatives=[(11,)])


@pytest.mark.parametrize(
    ("tokens", "costs"),
    [((), ()), ((0, 1), (1.0, 0.0)), ((2, 2), (1.0, 0.0)), ((1,), (math.nan,)), ((1, 2), (1.0,))],
)
def test_a_curve_that_is_none_is_refused(tokens: tuple[int, ...], costs: tuple[float, ...]):
    with pytest.raises(ValueError, match="budget"):
        Curve(tokens, costs)


@given(falling_curves(), st.floats(-60, 1.1e6))
def test_the_search_finds_the_smallest_budget_that_passes(curve: Curve, threshold: float):
    count = len(curve.tokens)
    asked: list[int] = []

    def passes(index: int) -> bool:
        asked.append(index)
        return curve.costs[index] <= threshold

    index, calls = search_budget(count, passes)
    passing = [i for i in range(count) if curve.costs[i] <= threshold]
    assert index == min([*passing, count - 1])
    assert calls == len(asked) == len(set(asked))
    assert math.floor(math.log2(count)) <= calls <= math.ceil(math.log2(count))
    assert count - 1 not in asked


def test_sixteen_budgets_take_four_passes_wherever_the_answer_lies():
    for answer in range(16):
        assert search_budget(16, lambda i, answer=answer: i >= answer) == (answer, 4)


@given(st.lists(curves(), min_size=1, max_size=8), st.integers(0, 480))
def test_the_threshold_keeps_to_the_budget_and_a_stricter_one_would_not(
    among: list[Curve], extra: int
):
    budget = sum(curve.tokens[0] for curve in among) + extra

    def spent(threshold: float) -> int:
        return sum(
            curve.tokens[
                search_budget(len(curve.tokens), lambda i, c=curve: c.costs[i] <= threshold)[0]
            ]
            for curve in among
        )

    threshold = search_threshold(among, budget)
    assert spent(threshold) <= budget
    stricter = sorted({cost for curve in among for cost in curve.costs if cost < threshold})
    falling = all(list(c.costs) == sorted(c.costs, reverse=True) for c in among)
    if stricter and falling:
        assert spent(stricter[-1]) > budget
