from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import bins_of, elbo_bins, window_sums

from schemas.bins import ElboBins, bin_bounds, bin_index, log_bin, log_bin_bounds

Windows = list[tuple[int, int]]


@given(st.lists(window_sums(), max_size=12), st.randoms(use_true_random=False), st.integers(0, 12))
def test_merge_does_not_depend_on_where_the_corpus_is_split(windows: Windows, random, cut: int):
    whole = bins_of(windows)
    shuffled = random.sample(windows, len(windows))
    first, second = bins_of(shuffled[:cut]), bins_of(shuffled[cut:])
    assert ElboBins.merge(first, second) == whole
    assert ElboBins.merge(second, first) == whole


@given(elbo_bins, elbo_bins, elbo_bins)
def test_merge_is_associative_and_knows_its_neutral_element(a: ElboBins, b: ElboBins, c: ElboBins):
    left = ElboBins.merge(ElboBins.merge(a, b), c)
    assert left == ElboBins.merge(a, ElboBins.merge(b, c)) == ElboBins.merge(a, b, c)
    assert ElboBins.merge(a, ElboBins.empty()) == a


@given(elbo_bins)
def test_bins_survive_json(bins: ElboBins):
    assert ElboBins.model_validate_json(bins.model_dump_json()) == bins


@given(st.lists(window_sums(), min_size=1, max_size=12))
def test_bins_know_the_means_and_the_range(windows: Windows):
    bins = bins_of(windows)
    elbos = [Fraction(total, tokens << 24) for total, tokens in windows]
    assert bins.windows == len(windows)
    assert bins.tokens == sum(tokens for _, tokens in windows)
    assert bins.weighted == sum(total for total, _ in windows)
    assert bins.range == (float(min(elbos)), float(max(elbos)))
    mean = float(sum(elbos) / len(elbos))
    assert bins.window_weighted_mean == pytest.approx(mean, rel=1e-12, abs=2**-50)


@given(window_sums(), window_sums())
def test_bins_are_in_order_of_the_elbo(first: tuple[int, int], second: tuple[int, int]):
    if Fraction(*first) <= Fraction(*second):
        assert bin_index(*first) <= bin_index(*second)


@given(window_sums())
def test_a_bin_holds_its_windows_and_is_narrow(window: tuple[int, int]):
    total, tokens = window
    lower, upper = bin_bounds(bin_index(total, tokens))
    elbo = total / tokens / 2**24
    if total:
        assert lower <= elbo * (1 + 1e-9)
        assert elbo < upper * (1 + 1e-9)
        assert upper <= lower * (1 + 2**-10) * (1 + 1e-12)
    else:
        assert (lower, upper) == (0, 0)


@given(st.integers(0, 1 << 70), st.integers(0, 12))
def test_a_log_bin_lies_between_its_bounds(value: int, bits: int):
    lower, upper = log_bin_bounds(log_bin(value, mantissa_bits=bits), mantissa_bits=bits)
    assert lower <= value
    assert value < upper or value == 0


def test_small_integers_have_bins_of_their_own():
    assert len({log_bin(value, mantissa_bits=6) for value in range(128)}) == 128


@pytest.mark.parametrize(("total", "tokens"), [(-1, 4), (3, 0), (3, 1 << 32)])
def test_a_window_that_cannot_be_is_refused(total: int, tokens: int):
    with pytest.raises(ValueError, match="not a window"):
        ElboBins.empty().add(total, tokens)


def test_stored_bins_out_of_order_are_refused():
    good = bins_of([(1000, 10), (9000, 10)]).model_dump()
    with pytest.raises(ValueError, match="in order"):
        ElboBins.model_validate({**good, "bins": good["bins"][::-1]})
