"""From a few videos to all of them, and how far off that may be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.resampling import Interval, VideoResamples

sizes = st.lists(st.integers(1, 10**9), min_size=2, max_size=12)


def resamples(sizes: list[int], times: int) -> VideoResamples:
    """Of a corpus that holds each of these videos so many times."""
    return VideoResamples(sizes, total_bytes=times * sum(sizes), total_videos=times * len(sizes))


@given(sizes, st.integers(1, 5), st.floats(0.001, 1000))
def test_what_grows_with_the_bytes_is_known_exactly(sizes: list[int], times: int, factor: float):
    found = resamples(sizes, times).total([factor * size for size in sizes])
    expected = pytest.approx(factor * times * sum(sizes), rel=1e-9)
    assert (found.value, found.low, found.high) == (expected, expected, expected)


@given(sizes, st.data())
def test_a_sample_that_is_everything_leaves_nothing_open(sizes: list[int], data: st.DataObject):
    values = data.draw(st.lists(st.floats(0, 1e6), min_size=len(sizes), max_size=len(sizes)))
    found = resamples(sizes, 1).total(values)
    assert found.value == pytest.approx(sum(values))
    assert found.low == pytest.approx(sum(values))
    assert found.high == pytest.approx(sum(values))


@given(sizes, st.data())
def test_the_estimate_lies_inside_its_interval_and_nothing_is_negative(
    sizes: list[int], data: st.DataObject
):
    flags = data.draw(st.lists(st.booleans(), min_size=len(sizes), max_size=len(sizes)))
    found = resamples(sizes, 7).count(flags)
    assert found.value == pytest.approx(7 * sum(flags))
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= found.value + 1e-9
    assert found.value - 1e-9 <= found.high <= 7 * len(sizes) + 1e-9


def test_the_truth_is_inside_about_as_often_as_promised():
    rng = np.random.default_rng(3)
    sizes = rng.gamma(2, 1e6, 400).astype(int) + 1
    values = sizes * rng.gamma(4, 0.25, 400)
    inside = 0
    for _ in range(40):
        chosen = rng.choice(400, 40, replace=False)
        sample = VideoResamples(
            sizes[chosen].tolist(), total_bytes=int(sizes.sum()), total_videos=400
        )
        found = sample.total(values[chosen].tolist())
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= values.sum() <= found.high
    assert inside >= 34


def test_parts_of_every_video_leave_something_open_until_all_are_seen():
    sample = resamples([100, 200, 300, 400], 1)
    values, of = [1.0, 5.0, 2.0, 7.0], [10.0, 10.0, 10.0, 20.0]
    widths: list[float] = []
    for seen in (0.1, 0.5, 1.0):
        found = sample.per(values, of, seen=seen)
        assert found.value == pytest.approx(15 / 50)
        assert found.low is not None
        assert found.high is not None
        assert found.low <= found.value <= found.high
        widths.append(found.high - found.low)
    assert widths[0] > widths[1] > widths[2] == 0


def test_a_product_is_as_uncertain_as_its_factors_together():
    sure, unsure = Interval(10.0, 10.0, 10.0), Interval(2.0, 1.4, 2.8)
    assert sure.by(unsure) == unsure.by(sure) == Interval(20.0, 14.0, 28.0)
    both = Interval(10.0, 6.0, 13.0).by(unsure)
    assert both.value == 20.0
    # 30 % and 40 % below, 40 % and 30 % above: 50 % together.
    assert (both.low, both.high) == (pytest.approx(10.0), pytest.approx(30.0))
    assert Interval(10.0, None, None).by(unsure) == Interval(20.0, None, None)
    assert Interval(0.0, 0.0, 0.0).by(unsure) == Interval(0.0, 0.0, 0.0)


def test_one_video_has_no_interval():
    found = VideoResamples([10], total_bytes=100, total_videos=10).total([3.0])
    assert found == Interval(30.0, None, None)
    assert found.times(2) == Interval(60.0, None, None)


def test_empty_files_say_nothing_about_bytes_but_count_as_videos():
    found = VideoResamples([0, 0], total_bytes=0, total_videos=4)
    assert found.total([0.0, 0.0]).value == 0.0
    assert found.count([True, False]).value == 2.0
