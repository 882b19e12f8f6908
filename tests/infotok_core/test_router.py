from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from infotok_core.router import (
    num_tokens,
    num_tokens_batch,
    select,
    select_batch,
    select_reference,
    selection_scores,
    training_mask,
    training_ratios,
    window_rates,
)
from schemas import rates as rates_of_corpus

# Few distinct values, so that ties are the rule.
maps = hnp.arrays(
    np.float16,
    hnp.array_shapes(min_dims=3, max_dims=3, max_side=6),
    elements=st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0]),
)
rates = st.floats(1e-3, 1)


# Shares that fall on half a token, where rules of rounding part.
halves = st.integers(1, 20_000).flatmap(
    lambda n: st.tuples(st.integers(0, n - 1).map(lambda k: (k + 0.5) / n), st.just(n))
)


@given(halves | st.tuples(rates, st.integers(1, 20_000)))
def test_training_inference_and_budget_round_a_rate_alike(window):
    rate, n = window
    narrow = torch.tensor([rate], dtype=torch.float32)
    for rate_B in (narrow, narrow.double(), torch.tensor([rate], dtype=torch.float64)):
        assert num_tokens_batch(rate_B, n).tolist() == [num_tokens(rate_B.item(), n)]
    assert num_tokens(rate, n) == rates_of_corpus.num_tokens(rate, n)


@given(information=maps, rate=rates)
def test_selection_keeps_exactly_its_budget_and_the_highest(information, rate):
    budget = num_tokens(rate, information.size)
    keep = select(information, budget)
    assert keep.sum() == budget
    assert keep.shape == information.shape
    if not keep.all():
        assert information[keep].min() >= information[~keep].max()


@given(size=st.integers(1, 200), rate=rates)
def test_a_flat_window_still_gets_its_budget_from_the_front(size, rate):
    budget = num_tokens(rate, size)
    keep = select(np.zeros(size, dtype=np.float16), budget)
    assert keep[:budget].all()
    assert not keep[budget:].any()


@given(information=maps, rate=rates)
def test_ties_go_to_the_lower_index(information, rate):
    keep = select(information, num_tokens(rate, information.size)).ravel()
    flat = information.ravel()
    for value in np.unique(flat):
        tied = keep[flat == value]
        assert (np.diff(tied.astype(int)) <= 0).all()


@settings(deadline=None)
@given(information=maps, first=rates, second=rates)
def test_each_window_of_a_batch_gets_its_own_budget(information, first, second):
    n = information.size
    budgets = [num_tokens(first, n), num_tokens(second, n)]
    flat = torch.from_numpy(np.stack([information.ravel(), information.ravel()[::-1]]))
    keep = select_batch(flat, torch.tensor(budgets))
    for row in range(2):
        assert np.array_equal(keep[row].numpy(), select(flat[row].numpy(), budgets[row]))


def test_the_number_of_tokens_rounds_half_up_within_one_and_all():
    assert [num_tokens(r, 10) for r in (1e-9, 0.05, 0.149, 0.15, 0.25, 1.0)] == [1, 1, 1, 2, 3, 10]
    assert num_tokens(1 / 16, 9216) == 576


def test_what_cannot_be_selected_is_refused():
    with pytest.raises(ValueError, match="cannot keep 5 of 4"):
        select(np.zeros(4, dtype=np.float16), 5)
    with pytest.raises(ValueError, match="not finite"):
        select(np.array([1.0, np.nan], dtype=np.float16), 1)


def test_the_reference_drops_the_minimum_at_rate_one_and_everything_of_a_flat_window():
    distinct = np.random.default_rng(0).permutation(101).astype(np.float32)
    assert select_reference(distinct, 1.0).sum() == 100
    assert not select_reference(np.ones((2, 3, 4), dtype=np.float32), 0.5).any()


@given(n=st.integers(2, 300), rate=st.sampled_from([0.05, 0.25, 0.3, 0.5, 0.75, 1.0]))
def test_the_reference_keeps_one_less_than_its_order_statistic(n, rate):
    distinct = np.random.default_rng(n).permutation(n).astype(np.float32)
    kept = n - 1 - math.floor((1 - rate) * (n - 1) + 1e-6)
    # A threshold that falls on an element, up to rounding, may keep or drop that one.
    assert abs(int(select_reference(distinct, rate).sum()) - kept) <= 1


def test_rates_follow_the_information_between_a_sixteenth_and_one():
    elbos = np.array([0.01, 1.0, 2.0, 9.0])
    rates_ = window_rates(elbos, strategy="global_elbo", target=0.25, expected=1.0)
    assert rates_.tolist() == [1 / 16, 0.25, 0.5, 1.0]
    assert window_rates(elbos, strategy="static", target=0.01).tolist() == [0.01] * 4


def test_binned_rates_are_quarters_and_never_zero():
    elbos = np.array([0.01, 0.4, 0.6, 1.6, 9.0])
    rates_ = window_rates(elbos, strategy="global_elbo_bin", target=0.5, expected=1.0)
    assert rates_.tolist() == [1 / 16, 0.25, 0.25, 0.75, 1.0]


@pytest.mark.parametrize(
    ("target", "expected"), [(0.0, 1.0), (1.5, 1.0), (0.5, None), (0.5, 0.0), (0.5, math.nan)]
)
def test_rates_without_a_meaning_are_refused(target, expected):
    with pytest.raises(ValueError, match=r"rate|expected"):
        window_rates(np.ones(1), strategy="global_elbo", target=target, expected=expected)


@given(seed=st.integers(0, 99), beta=st.sampled_from([0.25, 0.5, 0.75, 1.0]))
def test_training_ratios_average_to_beta_and_stay_below_one(seed, beta):
    information = torch.rand(2, 5, 3, 3, generator=torch.Generator().manual_seed(seed)) + 0.1
    ratios = training_ratios(information, torch.tensor([beta, beta]))
    torch.testing.assert_close(ratios.mean(dim=1), torch.tensor([beta, beta]))
    assert ratios.max() <= 1 + 1e-5


def test_training_treats_each_sample_by_itself():
    information = torch.rand(3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    beta = torch.tensor([0.25, 0.5, 1.0])
    together = training_mask(information, training_ratios(information, beta))
    for i in range(3):
        one = information[i : i + 1]
        assert torch.equal(
            together[i : i + 1], training_mask(one, training_ratios(one, beta[i : i + 1]))
        )
    assert together.flatten(1).sum(dim=1).tolist()[2] == 119


grids = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))


@pytest.mark.parametrize("selection", ["information", "r2l", "jump"])
@given(grid=grids, rate=rates, seed=st.integers(0, 99))
def test_every_selection_keeps_its_budget_and_nests_in_a_larger_one(selection, grid, rate, seed):
    information = torch.rand(1, *grid, generator=torch.Generator().manual_seed(seed))
    scores = selection_scores(selection, information).flatten(1)
    n = scores.shape[1]
    kept = num_tokens(rate, n)
    keep = select_batch(scores, torch.tensor([kept]))
    assert keep.sum() == kept
    assert (keep <= select_batch(scores, torch.tensor([min(n, kept + 1)]))).all()
    assert (select(scores[0].numpy(), kept) == keep[0].numpy()).all()


@pytest.mark.parametrize("selection", ["r2l", "jump"])
@given(grid=grids, rate=rates)
def test_blind_selections_give_each_frame_the_same_budget(selection, grid, rate):
    scores = selection_scores(selection, torch.zeros(1, *grid))
    keep = select_batch(scores.flatten(1), torch.tensor([num_tokens(rate, math.prod(grid))]))
    counts = keep.view(grid).sum(dim=(1, 2))
    assert counts.max() - counts.min() <= 1


def test_r2l_keeps_the_head_of_a_frame_and_jump_every_fourth_position():
    scores = {name: selection_scores(name, torch.zeros(1, 1, 2, 6)) for name in ("r2l", "jump")}
    half = {
        name: select_batch(score.flatten(1), torch.tensor([6]))[0].nonzero().flatten().tolist()
        for name, score in scores.items()
    }
    assert half == {"r2l": [0, 1, 2, 3, 4, 5], "jump": [0, 1, 4, 5, 8, 9]}
