from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import bins_of, information_maps, token_bins_of

from schemas.dealing import Rule, TokenDealer
from schemas.rates import RateRule, num_tokens, solve_rule
from schemas.token_rules import solve_token_rule
from schemas.units import window_sum

MIN_RATE = 1 / 16
Maps = list[NDArray[np.float16]]
maps_ = st.lists(information_maps(), min_size=1, max_size=12)
rates = st.floats(MIN_RATE, 1)


def proportional(maps: Maps, rate: float) -> RateRule:
    bins = bins_of([(window_sum(one), one.size) for one in maps])
    return solve_rule(bins, rate=rate, min_rate=MIN_RATE)


def threshold(maps: Maps, rate: float) -> Rule:
    return solve_token_rule(token_bins_of(maps), rate=rate)


def dealt(rule: Rule, maps: Maps) -> list[int]:
    dealer = TokenDealer(rule)
    return [dealer.deal(one)[0] for one in maps]


@given(maps_, rates, st.sampled_from([proportional, threshold]))
def test_an_exact_budget_is_dealt_out_to_the_last_token(maps: Maps, rate: float, solved):
    rule = solved(maps, rate)
    counts = dealt(rule, maps)
    asked = [rule.asked(one)[0] for one in maps]
    assert abs(sum(counts) - sum(asked)) <= 1
    for count, wanted, one in zip(counts, asked, maps, strict=True):
        assert 1 <= count <= one.size
        assert abs(count - wanted) <= 1


@given(maps_, rates)
def test_a_threshold_meets_the_rate_of_any_corpus_to_the_token(maps: Maps, rate: float):
    cells = sum(one.size for one in maps)
    assert abs(sum(dealt(threshold(maps, rate), maps)) - rate * cells) <= 0.5 + 1e-6


@given(maps_, rates, st.sampled_from([proportional, threshold]))
def test_the_rate_of_a_window_is_what_the_rule_asked_and_not_what_rounding_made_of_it(
    maps: Maps, rate: float, solved
):
    rule = solved(maps, rate)
    dealer = TokenDealer(rule)
    assert [dealer.deal(one)[1] for one in maps] == [rule.asked(one)[1] for one in maps]


def test_windows_that_resemble_each_other_do_not_all_round_the_same_way():
    dim, bright = np.zeros((2, 144), np.float16)
    dim[0], bright[0] = 1000 * 2.0**-24, 2000 * 2.0**-24
    maps = [dim] * 2000 + [bright] * 300
    rule = proportional(maps, 0.5)
    rounded = sum(num_tokens(rule.asked(one)[1], 144) for one in maps)
    assert abs(sum(dealt(rule, maps)) / (2300 * 144) - 0.5) < 1e-5
    assert abs(rounded / (2300 * 144) - 0.5) > 1e-4, "the case this is about"


def test_rules_without_an_exact_budget_round_each_window_for_itself():
    maps = [np.ones(3, np.float16)] * 4
    dealer = TokenDealer(RateRule.static(0.5))
    assert [dealer.deal(one) for one in maps] == [(2, 0.5)] * 4
