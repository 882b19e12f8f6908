"""Random numbers by name: any range of them, in any order, is the same."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.training_draws import Purpose, order, uniform

SEEDS = st.integers(-(2**70), 2**70)


@given(SEEDS, st.sampled_from(Purpose), st.integers(0, 2**40), st.integers(1, 9), st.integers(1, 9))
def test_a_range_is_its_members_one_by_one(
    seed: int, purpose: Purpose, first: int, count: int, width: int
):
    together = uniform(seed, purpose, first, count, width=width)
    assert together.shape == (count, width)
    single = [uniform(seed, purpose, first + i, 1, width=width)[0] for i in range(count)]
    assert np.array_equal(together, single)
    assert (together >= 0).all()
    assert (together < 1).all()


@given(SEEDS, st.integers(0, 1000), st.integers(1, 50))
def test_an_order_is_a_permutation(seed: int, index: int, count: int):
    assert sorted(order(seed, Purpose.EPOCH, index, count).tolist()) == list(range(count))


def test_seeds_purposes_and_numbers_differ():
    draws = [
        uniform(seed, purpose, number, 1, width=1).item()
        for seed in (0, 1)
        for purpose in Purpose
        for number in (0, 1)
    ]
    assert len(set(draws)) == len(draws)


def test_numbers_are_spread_evenly():
    draws = uniform(3, Purpose.SAMPLE, 0, 20_000, width=4)
    counts, _ = np.histogram(draws, bins=20, range=(0, 1))
    assert abs(counts - 4000).max() < 300
    assert abs(np.corrcoef(draws.T) - np.eye(4)).max() < 0.03


def test_what_a_seed_means_does_not_change():
    # A run that was started with an older version has to resume with the same clips.
    assert uniform(7, Purpose.CLIP, 100, 1, width=2).tolist() == [
        [0.1547643401014387, 0.4191278069827341]
    ]
    assert order(7, Purpose.EPOCH, 3, 6).tolist() == [5, 2, 3, 4, 1, 0]
