from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import bins_of, window_sums

from schemas.rates import (
    RateRule,
    num_tokens,
    paper_scale,
    solve_rule,
    solve_scale,
    window_rate,
)

MIN_RATE = 1 / 16
Windows = list[tuple[int, int]]
rates = st.floats(MIN_RATE, 1)


def mean_rate(rule: RateRule, windows: Windows) -> float:
    """Token-weighted mean of the rates, before rounding to whole tokens."""
    kept = sum(rule.rate(total, tokens) * tokens for total, tokens in windows)
    return kept / sum(tokens for _, tokens in windows)


@given(st.lists(window_sums(), min_size=1, max_size=12), rates)
def test_the_exact_budget_is_realised_for_any_corpus(windows: Windows, rate: float):
    rule = solve_rule(bins_of(windows), rate=rate, min_rate=MIN_RATE)
    assert mean_rate(rule, windows) == pytest.approx(rate, rel=5e-4)


@given(st.lists(window_sums(), min_size=1, max_size=12), rates, st.sampled_from([0.25, 0.5, 0.75]))
def test_any_exponent_realises_the_budget_and_flatter_rates_lie_closer(
    windows: Windows, rate: float, exponent: float
):
    bins = bins_of(windows)
    rule = solve_rule(bins, rate=rate, min_rate=MIN_RATE, exponent=exponent)
    assert rule.exponent == exponent
    assert mean_rate(rule, windows) == pytest.approx(rate, rel=5e-4)
    ordered = sorted(windows, key=lambda window: window[0] / window[1])
    got = [rule.rate(*window) for window in ordered if window[0]]
    assert got == sorted(got)
    plain = solve_rule(bins, rate=rate, min_rate=MIN_RATE)
    if len(got) > 1:
        steep = [plain.rate(*window) for window in ordered if window[0]]
        assert got[-1] / got[0] <= steep[-1] / steep[0] * (1 + 1e-3)


def test_the_exponent_is_that_of_the_rates():
    windows = [(1 << 20, 1000), (4 << 20, 1000)]
    halves = solve_rule(bins_of(windows), rate=0.3, min_rate=MIN_RATE, exponent=0.5)
    low, high = (halves.rate(*window) for window in windows)
    assert high / low == pytest.approx(2, rel=1e-9)
    assert halves.rate_at(4 * 2**20 / 1000 / 2**24) == pytest.approx(high)
    with pytest.raises(ValueError, match="exponent"):
        halves.model_validate(halves.model_dump() | {"exponent": 0.3})


@given(st.lists(window_sums(), min_size=3, max_size=3), rates)
def test_three_windows_with_heavy_clipping_realise_the_rate_in_tokens(
    windows: Windows, rate: float
):
    windows = [(total, tokens + 4096) for total, tokens in windows]
    rule = solve_rule(bins_of(windows), rate=rate, min_rate=MIN_RATE)
    kept = sum(num_tokens(rule.rate(total, tokens), tokens) for total, tokens in windows)
    cells = sum(tokens for _, tokens in windows)
    # Half a token of rounding per window.
    assert abs(kept - rate * cells) <= 5e-4 * rate * cells + 0.5 * len(windows)


@given(st.lists(window_sums(), min_size=1, max_size=12), rates)
def test_more_information_never_gets_a_lower_rate(windows: Windows, rate: float):
    rule = solve_rule(bins_of(windows), rate=rate, min_rate=MIN_RATE)
    ordered = sorted(windows, key=lambda window: window[0] / window[1])
    got = [rule.rate(*window) for window in ordered if window[0]]
    assert got == sorted(got)
    assert all(MIN_RATE <= value <= 1 for value in got)


@given(st.lists(window_sums(), min_size=1, max_size=12), rates, rates)
def test_a_larger_budget_takes_nothing_from_anybody(windows: Windows, first: float, second: float):
    low, high = sorted((first, second))
    bins = bins_of(windows)
    small = solve_rule(bins, rate=low, min_rate=MIN_RATE)
    large = solve_rule(bins, rate=high, min_rate=MIN_RATE)
    assert all(small.rate(*window) <= large.rate(*window) + 1e-12 for window in windows)


@given(st.integers(1, 5), rates)
def test_a_corpus_without_any_information_gets_the_rate_everywhere(count: int, rate: float):
    rule = solve_rule(bins_of([(0, 9216)] * count), rate=rate, min_rate=MIN_RATE)
    assert rule.rate(0, 9216) == pytest.approx(rate)


def test_dark_windows_stay_at_the_least_rate_while_the_others_can_carry_the_budget():
    windows = [(0, 1000), (5 << 20, 1000), (9 << 20, 1000)]
    rule = solve_rule(bins_of(windows), rate=0.5, min_rate=MIN_RATE)
    assert rule.rate(0, 1000) == MIN_RATE
    assert mean_rate(rule, windows) == pytest.approx(0.5, rel=1e-9)


def test_dark_windows_share_what_the_others_cannot_take():
    windows = [(0, 3000), (5 << 20, 1000)]
    rule = solve_rule(bins_of(windows), rate=0.5, min_rate=MIN_RATE)
    assert rule.rate(5 << 20, 1000) == 1
    assert rule.rate(0, 3000) == pytest.approx(1 / 3)


@given(st.lists(window_sums(), min_size=1, max_size=12))
def test_rate_one_keeps_every_token(windows: Windows):
    rule = solve_rule(bins_of(windows), rate=1.0, min_rate=MIN_RATE)
    assert all(num_tokens(rule.rate(*window), window[1]) == window[1] for window in windows)


def test_the_least_rate_can_be_asked_for():
    rule = solve_rule(bins_of([(5 << 20, 1000)]), rate=MIN_RATE, min_rate=MIN_RATE)
    assert rule.rate(5 << 20, 1000) == MIN_RATE


def test_a_rate_below_the_least_one_is_refused():
    with pytest.raises(ValueError, match=r"not 0\.05"):
        solve_rule(bins_of([(1, 1)]), rate=0.05, min_rate=MIN_RATE)


def test_an_empty_corpus_has_a_rule():
    assert solve_rule(bins_of([]), rate=0.5, min_rate=MIN_RATE).target == 0.5


def test_the_static_rule_ignores_the_information():
    rule = RateRule.static(0.3)
    assert rule.rate(0, 10) == rule.rate(1 << 30, 10) == 0.3


@given(st.lists(window_sums(), min_size=1, max_size=12), rates)
def test_the_papers_scale_divides_by_the_window_mean(windows: Windows, rate: float):
    bins = bins_of(windows)
    assume(bins.weighted)
    scale = paper_scale(bins, rate=rate)
    assert scale * bins.window_weighted_mean == pytest.approx(rate)
    rule = RateRule.paper(bins, rate=rate, min_rate=MIN_RATE)
    for total, tokens in windows:
        assert rule.rate(total, tokens) == window_rate(
            total, tokens, scale=scale, min_rate=MIN_RATE
        )


def test_the_paper_has_no_scale_for_a_dark_corpus_and_the_rule_keeps_the_rate():
    bins = bins_of([(0, 100)])
    with pytest.raises(ValueError, match="no scale"):
        paper_scale(bins, rate=0.5)
    assert RateRule.paper(bins, rate=0.5, min_rate=MIN_RATE).rate(0, 100) == 0.5


def test_a_given_mean_stands_in_for_the_measured_one():
    rule = RateRule.expected(0.1, rate=0.5, min_rate=MIN_RATE)
    assert rule.rate(round(0.1 * 2**24) * 100, 100) == pytest.approx(0.5)


def test_solve_scale_is_the_scale_of_the_rule():
    bins = bins_of([(5 << 20, 1000), (9 << 20, 1000)])
    rule = solve_rule(bins, rate=0.4, min_rate=MIN_RATE)
    assert solve_scale(bins, rate=0.4, min_rate=MIN_RATE) == rule.scale


@given(st.floats(0, 2), st.integers(1, 20_000))
def test_the_number_of_tokens_stays_in_the_window(rate: float, cells: int):
    assert 1 <= num_tokens(rate, cells) <= cells


def test_half_a_token_is_rounded_up():
    assert [num_tokens(0.5, cells) for cells in (1, 2, 3, 5)] == [1, 1, 2, 3]
