from __future__ import annotations

from bisect import bisect_right
from fractions import Fraction
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pipelines.timeline import FrameClock, Timed, resample

TICK = Fraction(1, 1000)


def place(stamps, *, rate=25, duration=40):
    clock = FrameClock(time_base=TICK, rate=Fraction(rate))
    return [clock.place(pts=pts, dts=dts, duration=duration)[0] for pts, dts in stamps]


@given(st.lists(st.integers(-(10**6), 10**6), min_size=1, unique=True))
def test_good_times_pass_unchanged(times):
    times = sorted(times)
    if any(b - a > 600_000 for a, b in pairwise(times)):
        return
    assert place([(t, None) for t in times]) == times


@given(
    st.lists(
        st.tuples(
            st.none() | st.integers(-(2**40), 2**40), st.none() | st.integers(-(2**40), 2**40)
        ),
        max_size=60,
    ),
    st.integers(-5, 2**40),
)
def test_whatever_the_file_says_times_grow_and_not_by_more_than_ten_minutes(stamps, duration):
    times = place(stamps, duration=duration)
    # A frame's own length and a tolerated gap, at most.
    assert all(0 < b - a <= 1_200_000 for a, b in pairwise(times))


def test_frames_without_times_follow_each_other_at_the_rate():
    assert place([(None, None)] * 4, duration=0) == [0, 40, 80, 120]


def test_a_file_with_wrong_presentation_times_is_timed_by_its_decoding_times():
    # AVI with B-frames: presentation times in coded order.
    stamps = [(1, 2), (2, 3), (4, 4), (3, 5), (6, 6), (5, 7), (8, 8), (7, 9)]
    times = place([(pts * 40, dts * 40) for pts, dts in stamps])
    assert times == sorted(set(times))
    assert times[-1] <= 10 * 40


def test_a_clock_that_is_set_back_goes_on_where_it_was():
    stamps = [(t, None) for t in (0, 40, 80, 120)] + [(t, None) for t in (-5000, -4960, -4920)]
    assert place(stamps) == [0, 40, 80, 120, 160, 200, 240]


def test_one_late_frame_does_not_shift_the_rest():
    assert place([(0, None), (40, None), (39, None), (120, None)]) == [0, 40, 80, 120]


def test_a_jump_of_hours_is_closed():
    assert place([(0, None), (40, None), (50_000_000, None), (50_000_040, None)]) == [
        0,
        40,
        80,
        120,
    ]


starts = st.lists(st.integers(0, 5000), min_size=1, max_size=50, unique=True).map(sorted)


@given(starts, st.integers(1, 300), st.sampled_from([0.5, 10, 12.5, 23.976, 29.97, 60, 240]))
def test_each_instant_shows_the_last_frame_that_had_begun(times, last_length, fps):
    ends = [*times[1:], times[-1] + last_length]
    frames = [Timed(start, end, i) for i, (start, end) in enumerate(zip(times, ends, strict=True))]
    samples = list(resample(frames, time_base=TICK, fps=fps))
    rate = Fraction(str(fps))
    instants = [times[0] + k * 1000 / rate for k in range(len(samples))]
    assert [s.item for s in samples] == [bisect_right(times, t) - 1 for t in instants]
    assert all(s.start_s == float(t * TICK) for s, t in zip(samples, instants, strict=True))
    # They cover the video, and the next instant would lie behind it.
    assert instants[-1] < ends[-1] <= instants[-1] + 1000 / rate
    assert all(a.end_s == b.start_s for a, b in pairwise(samples))


def test_without_a_rate_each_frame_comes_once():
    frames = [Timed(0, 40, "a"), Timed(40, 80, "b")]
    samples = list(resample(frames, time_base=TICK, fps=None))
    assert [(s.start_s, s.end_s, s.item) for s in samples] == [(0.0, 0.04, "a"), (0.04, 0.08, "b")]


@given(starts, st.lists(st.integers(1, 300), min_size=50, max_size=50))
def test_a_frame_is_shown_until_the_next_whatever_length_it_claims(times, lengths):
    # MP4 deals lengths out in coded order: B-frames of a variable rate carry each other's.
    frames = [
        Timed(start, start + length, i)
        for i, (start, length) in enumerate(zip(times, lengths, strict=False))
    ]
    samples = list(resample(frames, time_base=TICK, fps=None))
    assert [s.item for s in samples] == list(range(len(times)))
    assert [s.start_s for s in samples] == [float(t * TICK) for t in times]
    assert all(a.end_s == b.start_s for a, b in pairwise(samples))
    assert samples[-1].end_s == float(frames[-1].end * TICK)
