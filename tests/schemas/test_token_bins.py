from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from strategies import information_maps, token_bins_of

from schemas.token_bins import (
    TokenAccumulator,
    TokenBins,
    least_tokens,
    score_bin,
    score_bin_start,
    token_score_bins,
)

MIN_RATE = 1 / 16
Maps = list[NDArray[np.float16]]
scores = st.just(0.0) | st.floats(2.0**-60, 2.0**60)


@given(scores, scores)
def test_a_higher_score_is_never_in_a_lower_bin(one: float, other: float):
    low, high = sorted([one, other])
    assert score_bin(low) <= score_bin(high)


@given(st.floats(2.0**-60, 2.0**60))
def test_a_bin_holds_its_scores_and_is_at_most_an_eighth_wide(score: float):
    key = score_bin(score)
    start, end = score_bin_start(key), score_bin_start(key + 1)
    assert start <= score < end <= 1.125 * start
    assert score_bin(start) == key


def test_a_token_without_information_is_in_the_lowest_bin_of_all():
    assert (score_bin(0.0), score_bin_start(0)) == (0, 0.0)
    # What a float16 can hold at least, in the window with the most.
    least = np.array([2.0**-24, 65504], np.float16)
    assert token_score_bins(least).min() > 0


@given(information_maps(min_cells=1))
def test_the_bins_of_a_window_are_those_of_its_tokens_in_the_order_they_are_kept(
    information: NDArray[np.float16],
):
    root = np.sqrt(information.astype(np.float64).mean())
    if root == 0:
        wanted = [0] * information.size
    else:
        falling = np.sort(information.astype(np.float64))[::-1]
        wanted = [score_bin(float(value / root)) for value in falling]
    assert token_score_bins(information).tolist() == wanted


def test_the_two_zeros_of_float16_are_one():
    assert token_score_bins(np.array([-0.0, 0.5, 0.0], np.float16)).tolist()[1:] == [0, 0]
    assert token_score_bins(np.array([-0.0, 0.0], np.float16)).tolist() == [0, 0]


def test_information_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="non-finite"):
        TokenAccumulator(MIN_RATE).add(np.array([0.5, np.nan], np.float16))


def test_a_window_always_keeps_its_least_rate_rounded_down_but_one_token():
    found = [least_tokens(rate, cells) for rate, cells in ((0.3, 10), (0.3, 13), (0.01, 9), (1, 7))]
    assert found == [3, 3, 1, 7]
    # Ten tokens of one score each, of which the three best are not in the bins.
    information = np.arange(1, 11, dtype=np.float16)
    assert token_bins_of([information], 0.3).always == 3
    lowest = token_score_bins(information)[3:]
    assert [entry.key for entry in token_bins_of([information], 0.3).bins] == sorted(set(lowest))


@given(st.lists(information_maps(min_cells=1), max_size=8), st.data())
def test_neither_order_nor_grouping_of_merges_changes_anything(maps: Maps, data: st.DataObject):
    shuffled = data.draw(st.permutations(maps))
    cut = data.draw(st.integers(0, len(maps)))
    whole = token_bins_of(maps)
    parts = token_bins_of(shuffled[:cut]), token_bins_of(shuffled[cut:])
    assert TokenBins.merge(*parts) == TokenBins.merge(*reversed(parts)) == whole
    assert whole.tokens == sum(one.size for one in maps)


def test_tokens_counted_with_another_least_rate_are_not_added():
    one, other = token_bins_of([], 0.25), token_bins_of([], 0.5)
    with pytest.raises(ValueError, match=r"0\.5 cannot be added to those counted with 0\.25"):
        TokenBins.merge(one, other)


@pytest.mark.parametrize("bins", [((5, 0),), ((5, 1), (5, 1)), ((6, 1), (5, 1)), ((-1, 1),)])
def test_bins_that_are_empty_or_out_of_order_are_refused(bins: tuple):
    with pytest.raises(ValidationError):
        TokenBins(min_rate=0.5, bins=bins)
