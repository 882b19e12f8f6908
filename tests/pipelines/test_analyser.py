"""Results do not depend on what shares a batch, and one bad window costs one video."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from units import CountingTokenizer, frames, make_tokenizer, unit_of

from infotok_core.tokenizer import Analysis, Tokenizer
from pipelines.analyser import UnitAnalyser
from pipelines.records import DecodedUnit
from pipelines.unit_status import describe_unit
from schemas.failures import FailureReason, FailureStage
from schemas.units import decode_unit, window_sum


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    torch.set_num_threads(1)
    return make_tokenizer()


class SpoiledTokenizer:
    """The real one, but what it says of a black window is some other value."""

    def __init__(self, tokenizer: Tokenizer, value: float) -> None:
        self._tokenizer = tokenizer
        self._value = value
        self.fingerprint = tokenizer.fingerprint
        self.device = tokenizer.device
        self.config = tokenizer.config

    def analyse(self, video_u8_BTHWC: Tensor, /) -> Analysis:
        analysis = self._tokenizer.analyse(video_u8_BTHWC)
        information = analysis.information_Bthw.clone()
        for row, window in enumerate(video_u8_BTHWC):
            if not window.any():
                information[row, 1, 0, 0] = self._value
        return Analysis(codes_Bthw=analysis.codes_Bthw, information_Bthw=information)


UNITS = [
    unit_of([frames(1), frames(2), frames(3)], index=1),
    unit_of([frames(4, 24, 16)], index=2),
    unit_of([frames(5), frames(6)], index=3, valid=[9, 2]),
    unit_of([frames(7, 24, 16), frames(8, 24, 16)], index=4),
]


def stored(tokenizer: Tokenizer, units: Sequence[DecodedUnit]) -> dict[str, bytes]:
    results = list(UnitAnalyser(tokenizer, batch_size=8).analyse(units))
    assert [result.unit for result in results] == list(units)
    assert all(result.failure is None for result in results)
    return {result.unit.path: result.data for result in results}


@pytest.fixture(scope="module")
def alone(tokenizer: Tokenizer) -> dict[str, bytes]:
    return {path: data for unit in UNITS for path, data in stored(tokenizer, [unit]).items()}


@given(st.permutations(UNITS), st.integers(0, len(UNITS)))
@settings(max_examples=8)
def test_a_unit_is_the_same_bytes_whatever_comes_with_it(
    tokenizer: Tokenizer, alone: dict[str, bytes], order: list[DecodedUnit], cut: int
):
    found = {**stored(tokenizer, order[:cut]), **stored(tokenizer, order[cut:])}
    assert found == alone


def test_a_unit_holds_what_the_tokenizer_says_of_its_windows(
    tokenizer: Tokenizer, alone: dict[str, bytes]
):
    windows = decode_unit(alone["units/1"])
    expected = tokenizer.analyse(torch.from_numpy(UNITS[0].frames_NTHWC))
    for row, window in enumerate(windows):
        assert window.span == UNITS[0].spans[row]
        assert (window.codes == expected.codes_Bthw[row].numpy()).all()
        rounded = expected.information_Bthw[row].numpy().astype(np.float16)
        assert (window.information == rounded).all()


@pytest.mark.parametrize(("valid", "latent"), [(1, 1), (2, 2), (5, 2), (6, 3), (9, 3)])
def test_a_tail_keeps_the_latent_frames_with_real_content(
    tokenizer: Tokenizer, valid: int, latent: int
):
    padded = frames(9)
    padded[valid:] = padded[valid - 1]
    unit = unit_of([padded], valid=[valid])
    [result] = UnitAnalyser(tokenizer, batch_size=8).analyse([unit])
    [window] = decode_unit(result.data)
    assert window.codes.shape == window.information.shape == (latent, 2, 2)
    assert window.span.num_frames == valid


@pytest.mark.parametrize("valid", [1, 5])
def test_the_tokens_of_a_tail_are_those_of_the_shorter_video(tokenizer: Tokenizer, valid: int):
    # The network is causal in time: what the padding holds does not reach back.
    padded = frames(10)
    padded[valid:] = padded[valid - 1]
    [result] = UnitAnalyser(tokenizer, batch_size=8).analyse([unit_of([padded], valid=[valid])])
    [window] = decode_unit(result.data)
    short = tokenizer.analyse(torch.from_numpy(padded[None, :valid]))
    assert (window.codes == short.codes_Bthw[0].numpy()).all()
    np.testing.assert_allclose(
        window.information, short.information_Bthw[0].numpy(), rtol=2e-3, atol=1e-6
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_a_window_that_is_not_finite_fails_its_unit_alone(tokenizer: Tokenizer, value: float):
    # 1e6 is finite, but no float16.
    black = np.zeros_like(frames(0))
    units = [UNITS[0], unit_of([frames(11), black, frames(12)], index=9), UNITS[2]]
    analyser = UnitAnalyser(SpoiledTokenizer(tokenizer, value), batch_size=8)
    good, bad, other = analyser.analyse(units)
    assert good.failure is None
    assert other.failure is None
    assert {good.data, other.data} == set(stored(tokenizer, [UNITS[0], UNITS[2]]).values())
    assert bad.failure is not None
    assert (bad.failure.reason, bad.failure.stage) == (
        FailureReason.NON_FINITE,
        FailureStage.ANALYSE,
    )
    assert "window 1" in bad.failure.detail
    assert bad.data == b""


def test_no_units_give_no_results(tokenizer: Tokenizer):
    assert list(UnitAnalyser(tokenizer, batch_size=8).analyse([])) == []


def test_a_unit_is_described_by_its_bytes_and_its_windows(alone: dict[str, bytes]):
    data = alone["units/3"]
    windows = decode_unit(data)
    entry, bins, tokens = describe_unit("units/3", "id", data, windows, token_floor=None)
    assert tokens is None
    assert (entry.windows, entry.num_bytes) == (2, len(data))
    assert entry.tokens == sum(w.codes.size for w in windows) == 3 * 4 + 2 * 4
    assert entry.sha256 == hashlib.sha256(data).hexdigest()
    assert bins.weighted == sum(window_sum(w.information) for w in windows)
    assert (bins.windows, bins.tokens) == (2, entry.tokens)
    same, bins_too, tokens = describe_unit("units/3", "id", data, windows, token_floor=0.25)
    assert (same, bins_too) == (entry, bins)
    assert tokens is not None
    assert (tokens.tokens, tokens.always, tokens.min_rate) == (entry.tokens, 3 + 2, 0.25)


# Batches, as on a GPU


def numbers_of(analyser: UnitAnalyser, units: Sequence[DecodedUnit]) -> list[list[int]]:
    """The number that each window of each unit was given."""
    found: list[list[int]] = []
    for result in analyser.analyse(units):
        windows = decode_unit(result.data)
        assert all((w.codes == w.codes.flat[0]).all() for w in windows)
        found.append([int(w.codes.flat[0]) for w in windows])
    return found


def test_shared_batches_cross_units_and_are_padded_to_one_size():
    tokenizer = CountingTokenizer()
    found = numbers_of(UnitAnalyser(tokenizer, batch_size=4, fixed_places=False), UNITS)
    # Two shapes, what has waited longest first: five windows of 16 x 16, three of 24 x 16.
    assert tokenizer.batches == [(4, 9, 16, 16, 3), (4, 9, 24, 16, 3), (4, 9, 16, 16, 3)]
    assert found == [[0, 1, 2], [4], [3, 8], [5, 6]]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(1, 7), st.integers(1, 8))
@settings(max_examples=30)
def test_every_window_gets_its_own_result_whatever_fits(
    counts: list[int], batch_size: int, room: int
):
    units = [unit_of([frames(0)] * count, index=index) for index, count in enumerate(counts)]
    tokenizer = CountingTokenizer(room)
    found = numbers_of(UnitAnalyser(tokenizer, batch_size=batch_size, fixed_places=False), units)
    assert [len(numbers) for numbers in found] == counts
    flat = [number for numbers in found for number in numbers]
    assert flat == list(range(sum(counts)))
    sizes = {shape[0] for shape in tokenizer.batches}
    assert len(sizes) == 1
    assert max(sizes) <= min(batch_size, room)


def test_batches_are_halved_for_good_when_memory_runs_out(caplog: pytest.LogCaptureFixture):
    tokenizer = CountingTokenizer(room=2)
    analyser = UnitAnalyser(tokenizer, batch_size=8)
    units = [unit_of([frames(0)] * 5)]
    assert numbers_of(analyser, units) == [[0, 1, 2, 3, 4]]
    assert [shape[0] for shape in tokenizer.batches] == [2, 2, 2]
    assert [record.getMessage() for record in caplog.records] == [
        "GPU out of memory: batches of 4 of (9, 16, 16, 3) from now on",
        "GPU out of memory: batches of 2 of (9, 16, 16, 3) from now on",
    ]
    caplog.clear()
    numbers_of(analyser, units)
    assert caplog.records == []


def test_one_window_that_does_not_fit_is_a_memory_error():
    analyser = UnitAnalyser(CountingTokenizer(room=0), batch_size=4)
    with pytest.raises(MemoryError, match="cannot hold one window"):
        list(analyser.analyse([unit_of([frames(0)])]))
