"""Windows of many callers in batches of one size, and what one caller's misfortune costs others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from units import CountingTokenizer, frames, unit_of

from infotok_core.tokenizer import Analysis
from pipelines.window_batches import WindowBatches
from schemas.windows import WindowAnalysis

Results = Iterator[Sequence[WindowAnalysis] | Exception]
BLACK = np.zeros_like(frames(0))


class ChoosyTokenizer(CountingTokenizer):
    """Refuses a batch with a black window."""

    def analyse(self, video_u8_BTHWC: Tensor, /) -> Analysis:
        if not video_u8_BTHWC.flatten(1).any(1).all():
            raise ValueError("black")
        return super().analyse(video_u8_BTHWC)


class ConfusedTokenizer(CountingTokenizer):
    """Says too little of a batch with a black window."""

    def analyse(self, video_u8_BTHWC: Tensor, /) -> Analysis:
        if video_u8_BTHWC.flatten(1).any(1).all():
            return super().analyse(video_u8_BTHWC)
        return Analysis(codes_Bthw=torch.zeros(1, 3, 2, 2), information_Bthw=torch.zeros(0))


class LostTokenizer(CountingTokenizer):
    """On a GPU that fails with the second batch."""

    def analyse(self, video_u8_BTHWC: Tensor, /) -> Analysis:
        if self.batches:
            raise torch.AcceleratorError("an illegal memory access was encountered")
        return super().analyse(video_u8_BTHWC)


def numbers(results: Results) -> list[list[int]]:
    """The number that each window of each unit was given."""
    found: list[list[int]] = []
    for windows in results:
        assert not isinstance(windows, Exception)
        found.append([int(window.codes.flat[0]) for window in windows])
    return found


def test_windows_of_different_callers_share_a_batch():
    tokenizer = CountingTokenizer()
    batches = WindowBatches(tokenizer, batch_size=4, fixed_places=False)
    first = batches.analyse([unit_of([frames(0)] * 2)])
    second = batches.analyse([unit_of([frames(1)] * 3, index=1)])
    assert numbers(second) == [[2, 3, 4]]
    assert numbers(first) == [[0, 1]]
    assert [shape[0] for shape in tokenizer.batches] == [4, 4]


def test_a_batch_that_is_not_full_waits_while_the_gpu_has_another():
    # Others may bring windows meanwhile: padding costs as much as they do.
    tokenizer = CountingTokenizer()
    batches = WindowBatches(tokenizer, batch_size=4, fixed_places=False)
    first = batches.analyse([unit_of([frames(0)] * 4), unit_of([frames(0)], index=1)])
    next(first)
    assert len(tokenizer.batches) == 1
    second = batches.analyse([unit_of([frames(0)] * 3, index=2)])
    assert numbers(second) == [[5, 6, 7]]
    assert numbers(first) == [[4]]


def test_how_full_each_batch_was_is_logged(caplog: pytest.LogCaptureFixture):
    # Read by `benchmarks/meters.py`.
    batches = WindowBatches(CountingTokenizer(), batch_size=4, fixed_places=False)
    with caplog.at_level("DEBUG", "pipelines.window_batches"):
        numbers(batches.analyse([unit_of([frames(0)] * 6)]))
    assert caplog.messages == ["4 windows in 4 places; 2 wait", "2 windows in 4 places; 0 wait"]


@given(
    st.lists(st.lists(st.integers(1, 5), max_size=3), min_size=1, max_size=6),
    st.integers(1, 7),
    st.integers(1, 8),
    st.booleans(),
)
@settings(max_examples=20)
def test_every_window_of_every_thread_gets_a_result_of_its_own(
    calls: list[list[int]], batch_size: int, room: int, fixed_places: bool
):
    tokenizer = CountingTokenizer(room)
    batches = WindowBatches(tokenizer, batch_size=batch_size, fixed_places=fixed_places)

    def call(counts: list[int]) -> list[list[int]]:
        units = [unit_of([frames(0)] * count, index=index) for index, count in enumerate(counts)]
        return numbers(batches.analyse(units))

    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(call, calls))
    assert [[len(unit) for unit in call] for call in found] == calls
    flat = [number for call in found for unit in call for number in unit]
    assert len(set(flat)) == len(flat)
    sizes = {shape[0] for shape in tokenizer.batches}
    assert len(sizes) <= 1
    assert all(size <= min(batch_size, room) for size in sizes)
    assert room < batch_size or sizes <= {batch_size}


class WideTokenizer(CountingTokenizer):
    """On a GPU that holds one window of 32 columns, and any number of others."""

    def analyse(self, video_u8_BTHWC: Tensor, /) -> Analysis:
        self.room = 1 if video_u8_BTHWC.shape[3] == 32 else 64
        return super().analyse(video_u8_BTHWC)


@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from([16, 32])), min_size=2, max_size=6))
@settings(max_examples=20)
def test_windows_too_large_for_a_batch_leave_batches_of_others_as_they_are(
    units: list[tuple[int, int]],
):
    # Otherwise one odd video would make all that come after it slow, and move tokens of theirs.
    tokenizer = WideTokenizer()
    batches = WindowBatches(tokenizer, batch_size=4)
    asked = [
        unit_of([frames(0, width=width)] * count, index=index)
        for index, (count, width) in enumerate(units)
    ]
    found = numbers(batches.analyse(asked))
    assert [len(unit) for unit in found] == [count for count, _ in units]
    assert {shape[0] for shape in tokenizer.batches if shape[3] == 16} <= {4}
    assert {shape[0] for shape in tokenizer.batches if shape[3] == 32} <= {1}


class PlaceTokenizer(CountingTokenizer):
    """Gives every window its place in the batch, as kernels do that depend on it."""

    def analyse(self, video_u8_BTHWC: Tensor, /) -> Analysis:
        self.batches.clear()
        return super().analyse(video_u8_BTHWC)


@given(st.lists(st.lists(st.integers(1, 9), max_size=3), min_size=1, max_size=6), st.integers(1, 7))
@settings(max_examples=20)
def test_a_window_has_the_same_place_in_a_batch_whatever_else_is_going_on(
    calls: list[list[int]], batch_size: int
):
    batches = WindowBatches(PlaceTokenizer(), batch_size=batch_size)

    def call(counts: list[int]) -> list[list[int]]:
        units = [unit_of([frames(0)] * count, index=index) for index, count in enumerate(counts)]
        return numbers(batches.analyse(units))

    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(call, calls))
    # Units are of videos 0, 1, 2: their first windows have these places.
    assert found == [
        [
            [place % batch_size for place in range(index, index + count)]
            for index, count in enumerate(counts)
        ]
        for counts in calls
    ]


@pytest.mark.parametrize("tokenizer", [ChoosyTokenizer(), ConfusedTokenizer()])
def test_a_unit_that_the_tokenizer_cannot_analyse_fails_alone(tokenizer: CountingTokenizer):
    batches = WindowBatches(tokenizer, batch_size=4)
    good, bad, other = batches.analyse(
        [
            unit_of([frames(1)] * 3),
            unit_of([frames(1), BLACK, frames(1)], index=1),
            unit_of([frames(1)] * 2, index=2),
        ]
    )
    assert isinstance(bad, ValueError)
    found = numbers(iter([good, other]))
    assert [len(unit) for unit in found] == [3, 2]
    assert len({number for unit in found for number in unit}) == 5


def test_a_lost_gpu_is_lost_to_every_caller():
    batches = WindowBatches(LostTokenizer(), batch_size=4)
    first = batches.analyse([unit_of([frames(0)] * 8)])
    second = batches.analyse([unit_of([frames(0)], index=1)])
    for results in (first, second, batches.analyse([unit_of([frames(0)], index=2)])):
        with pytest.raises(torch.AcceleratorError):
            next(results)
