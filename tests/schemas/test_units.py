from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import TOKENIZER, analysis, float16_bits

from schemas.units import decode_unit, encode_unit, window_sum
from schemas.versions import FormatError
from schemas.windows import WindowAnalysis

VIDEO = "0" * 32


def _encode(windows: list[WindowAnalysis]) -> bytes:
    return encode_unit(windows, video=VIDEO, unit_index=0, tokenizer=TOKENIZER)


@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=4
    )
)
def test_windows_survive_a_unit_whatever_their_shapes(shapes: list[tuple[int, int, int]]):
    windows = [analysis(7, window_index=i, shape=shape) for i, shape in enumerate(shapes)]
    for stored, window in zip(decode_unit(_encode(windows)), windows, strict=True):
        assert stored.span == window.span
        assert np.array_equal(stored.codes, window.codes)
        assert np.array_equal(stored.information, window.information)


def test_the_order_of_the_windows_does_not_change_the_bytes():
    windows = [analysis(3, window_index=index) for index in range(16)]
    assert _encode(windows) == _encode(windows[::-1])


def test_a_unit_refuses_to_be_empty_or_to_hold_a_window_twice():
    with pytest.raises(ValueError, match="distinct index"):
        _encode([])
    with pytest.raises(ValueError, match="distinct index"):
        _encode([analysis(1), analysis(2)])


def test_damage_anywhere_is_noticed():
    data = _encode([analysis(5, window_index=i, shape=(9, 16, 16)) for i in range(4)])
    for place in range(4, len(data), len(data) // 40):
        damaged = bytearray(data)
        damaged[place] ^= 0xFF
        try:
            decode_unit(bytes(damaged))
        except FormatError:
            continue
        # Flipped text of the footer: nothing that is read.
        assert place > len(data) * 0.6, place


@pytest.mark.parametrize("cut", [0, 3, 200])
def test_a_cut_off_unit_is_noticed(cut: int):
    with pytest.raises(FormatError, match="unit object cannot be read"):
        decode_unit(_encode([analysis(5)])[:cut])


@given(st.lists(float16_bits, max_size=64))
def test_a_window_sum_is_exact(bits: list[int]):
    information = np.array(bits, np.uint16).view(np.float16)
    exact = sum(Fraction(float(value)) for value in information)
    assert window_sum(information) == exact * 2**24


def test_a_window_sum_cannot_overflow():
    information = np.full(3 << 20, 65504, np.float16)
    assert window_sum(information) == 65504 * (3 << 20) << 24


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5])
def test_a_window_sum_refuses_what_is_no_information(value: float):
    with pytest.raises(ValueError, match="negative or non-finite"):
        window_sum(np.array([0.5, value], np.float16))


def test_a_window_sum_refuses_values_that_were_not_rounded_yet():
    with pytest.raises(ValueError, match="float32"):
        window_sum(np.zeros(4, np.float32))
