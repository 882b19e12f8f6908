from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import information_maps, token_bins_of

from infotok_core.router import select
from schemas.dealing import TokenDealer
from schemas.token_bins import score_bin, token_score_bins
from schemas.token_rules import TokenRule, solve_token_rule

MIN_RATE = 1 / 16
Maps = list[NDArray[np.float16]]
maps_ = st.lists(information_maps(), min_size=1, max_size=10)
rates = st.floats(MIN_RATE, 1)


def solved(maps: Maps, rate: float) -> TokenRule:
    return solve_token_rule(token_bins_of(maps), rate=rate)


def asked(rule: TokenRule, maps: Maps) -> list[float]:
    return [rule.asked(one)[0] for one in maps]


@given(maps_, rates)
def test_the_windows_together_ask_for_the_budget(maps: Maps, rate: float):
    cells = sum(one.size for one in maps)
    assert sum(asked(solved(maps, rate), maps)) == pytest.approx(rate * cells, abs=1e-6)


@given(maps_, rates)
def test_every_window_keeps_its_least_rate_and_no_more_than_it_has(maps: Maps, rate: float):
    rule = solved(maps, rate)
    for one in maps:
        count, share = rule.asked(one)
        assert int(MIN_RATE * one.size) <= count <= one.size
        assert share == count / one.size


@given(maps_, rates, rates)
def test_a_higher_rate_takes_no_token_from_any_window(maps: Maps, one: float, other: float):
    low, high = sorted([one, other])
    fewer, more = asked(solved(maps, low), maps), asked(solved(maps, high), maps)
    assert all(less <= much + 1e-6 for less, much in zip(fewer, more, strict=True))


@given(maps_, rates)
def test_no_token_is_dropped_that_scores_higher_than_one_that_is_kept(maps: Maps, rate: float):
    rule = solved(maps, rate)
    dealer, edge = TokenDealer(rule), score_bin(rule.threshold)
    for one in maps:
        count, _ = dealer.deal(one)
        bins, least = token_score_bins(one), int(MIN_RATE * one.size)
        assert (bins[max(count, least) :] <= edge).all()
        assert (bins[least:count] >= edge).all()
        # What is kept of a window are its tokens of the highest bins.
        kept = one[select(one, count)]
        assert sorted(kept.tolist()) == sorted(one.tolist())[one.size - count :]


@given(st.integers(1, 9), st.floats(0.001, 1), rates)
def test_tokens_that_all_score_the_same_leave_every_window_the_same(
    count: int, level: float, rate: float
):
    maps = [np.full(64, level, np.float16)] * count
    assert asked(solved(maps, rate), maps) == pytest.approx([rate * 64] * count, abs=1e-6)


def test_windows_without_information_are_the_last_to_get_more_than_the_least():
    dark, bright = np.zeros(64, np.float16), np.linspace(0.01, 1, 64).astype(np.float16)
    maps = [dark, bright]
    assert asked(solved(maps, 0.5), maps) == pytest.approx([4, 60])
    assert asked(solved(maps, 0.75), maps) == pytest.approx([32, 64])


def test_at_rate_1_nothing_is_dropped_and_at_the_least_rate_nothing_else_is_kept():
    maps = [np.linspace(level, 1, 48).astype(np.float16) for level in (0.0, 0.3, 0.9)]
    assert asked(solved(maps, 1.0), maps) == [48, 48, 48]
    assert asked(solved(maps, MIN_RATE), maps) == [3, 3, 3]


def test_a_corpus_without_windows_has_a_rule():
    assert solved([], 0.5).target == 0.5


def test_a_rate_below_the_least_is_refused():
    with pytest.raises(ValueError, match=r"rate must be in \[min_rate, 1\]"):
        solved([], 0.05)


def test_dull_windows_get_more_than_by_one_threshold_on_the_information_itself():
    # Ten times the information: its tokens score sqrt(10) times as high, not ten times.
    dull = np.geomspace(0.01, 0.1, 160).astype(np.float16)
    vivid = np.geomspace(0.1, 1.0, 160).astype(np.float16)
    few, many = asked(solved([dull, vivid], 0.5), [dull, vivid])
    assert 10 < few < 80 < many < 150
