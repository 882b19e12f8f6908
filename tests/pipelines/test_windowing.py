from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config import WindowConfig
from pipelines.timeline import Sample
from pipelines.windowing import CutWindow, WindowCutter


class OneByOne:
    """A picture of one pixel that holds its number, and notes that it was asked for."""

    def __init__(self, number: int, rendered: list[int]) -> None:
        self.number = number
        self.rendered = rendered

    def pixels(self) -> np.ndarray:
        self.rendered.append(self.number)
        return np.full((1, 1, 3), self.number, np.uint8)


def cut(num_frames, window, *, wanted=lambda index: True):
    rendered: list[int] = []
    buffers: list[np.ndarray] = []

    def new_buffer() -> np.ndarray:
        buffers.append(np.full((window.frames, 1, 1, 3), 255, np.uint8))
        return buffers[-1]

    cutter = WindowCutter(window, wanted=wanted, new_buffer=new_buffer)
    windows: list[CutWindow] = []
    for number in range(num_frames):
        made = cutter.add(Sample(float(number), number + 1.0, OneByOne(number, rendered)))
        windows += [made] if made else []
    tail = cutter.finish()
    return windows + ([tail] if tail else []), cutter, rendered, buffers


def numbers(window: CutWindow) -> list[int]:
    return window.frames_THWC[:, 0, 0, 0].tolist()


configs = st.integers(0, 3).flatmap(
    lambda k: st.builds(
        WindowConfig,
        frames=st.just(1 + 4 * k),
        overlap=st.integers(0, 4 * k),
        tail=st.sampled_from(["pad", "drop"]),
    )
)


@given(st.integers(0, 120), configs)
def test_windows_are_slices_of_the_sequence(num_frames, window):
    windows, cutter, _, _ = cut(num_frames, window)
    step = window.frames - window.overlap
    expected: list[list[int]] = []
    start = 0
    # A window exists if it holds a frame that the one before does not.
    while start == 0 or start + window.overlap < num_frames:
        expected.append(list(range(start, min(start + window.frames, num_frames))))
        start += step
    if window.tail == "drop":
        expected = [slice_ for slice_ in expected if len(slice_) == window.frames]
    expected = [slice_ for slice_ in expected if slice_]
    assert [w.span.num_frames for w in windows] == [len(slice_) for slice_ in expected]
    for index, (made, slice_) in enumerate(zip(windows, expected, strict=True)):
        padding = [slice_[-1]] * (window.frames - len(slice_))
        assert numbers(made) == slice_ + padding
        assert made.span.window_index == index
        assert made.span.start_frame == slice_[0] == index * step
        assert (made.span.start_time_s, made.span.end_time_s) == (slice_[0], slice_[-1] + 1)
    assert cutter.num_windows == len(windows)
    covered = {number for slice_ in expected for number in slice_}
    assert cutter.num_dropped == num_frames - len(covered)


@given(st.integers(0, 120), configs, st.sets(st.integers(0, 60)))
def test_wanted_windows_do_not_depend_on_which_others_are_skipped(num_frames, window, skipped):
    every, all_cut, _, _ = cut(num_frames, window)
    some, some_cut, rendered, buffers = cut(
        num_frames, window, wanted=lambda index: index not in skipped
    )
    kept = [w for w in every if w.span.window_index not in skipped]
    assert [numbers(w) for w in some] == [numbers(w) for w in kept]
    assert [w.span for w in some] == [w.span for w in kept]
    assert some_cut.num_windows == all_cut.num_windows
    # Nothing is rendered twice, and only what a wanted window (or a dropped tail) holds.
    assert len(rendered) == len(set(rendered))
    assert len(buffers) <= len(kept) + 1


def test_frames_of_skipped_windows_are_never_rendered():
    window = WindowConfig(frames=5)
    _, _, rendered, buffers = cut(15, window, wanted=lambda index: index == 1)
    assert rendered == list(range(5, 10))
    assert len(buffers) == 1


def test_a_tail_of_nothing_but_overlap_is_no_window():
    windows, _, _, _ = cut(9, WindowConfig(frames=5, overlap=1))
    assert [numbers(w) for w in windows] == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8]]


@pytest.mark.parametrize(("tail", "dropped"), [("drop", 2), ("pad", 0)])
def test_a_short_tail_is_dropped_or_padded_with_its_last_frame(tail, dropped):
    windows, cutter, _, _ = cut(7, WindowConfig(frames=5, tail=tail))
    assert cutter.num_dropped == dropped
    assert [numbers(w) for w in windows[1:]] == ([] if dropped else [[5, 6, 6, 6, 6]])
