from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infotok_core.patching import haar_matrix, patch, unpatch


@settings(max_examples=25, deadline=None)
@given(
    log_size=st.integers(0, 2),
    steps=st.integers(0, 2),
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_unpatching_undoes_patching(log_size, steps, rows, columns, seed):
    size = 2**log_size
    shape = (2, 3, 1 + steps * size, rows * size, columns * size)
    video = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    bands = patch(video, haar_matrix(size))
    assert bands.shape == (2, 3 * size**3, 1 + steps, rows, columns)
    torch.testing.assert_close(unpatch(bands, haar_matrix(size)), video, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [2, 4])
def test_the_first_band_is_the_mean_of_the_patch(size):
    video = torch.randn(1, 3, 1 + size, 2 * size, size)
    cells = video[:, :, 1:].unflatten(3, (2, size)).mean(dim=(2, 4, 5))
    torch.testing.assert_close(patch(video, haar_matrix(size))[:, :3, 1, :, 0], cells)


def test_the_first_patch_holds_the_first_frame_alone():
    video = torch.randn(1, 3, 5, 4, 4)
    other = video.clone()
    other[:, :, 1:] = 0
    assert torch.equal(patch(video, haar_matrix(4))[:, :, 0], patch(other, haar_matrix(4))[:, :, 0])


def test_bands_are_ordered_by_time_then_height_then_width():
    ramp = torch.zeros(1, 1, 3, 2, 2)
    ramp[..., 1] = 1.0  # changes along the width alone
    bands = patch(ramp, haar_matrix(2))[0, :, 1, 0, 0]
    assert bands.nonzero().flatten().tolist() == [0, 1]  # LLL and LLH


@pytest.mark.parametrize("size", [2, 4])
def test_one_multiplication_equals_the_steps_it_stands_for(size):
    video = torch.randn(2, 3, 1 + 2 * size, 2 * size, size)
    matrix = haar_matrix(size)
    # Half precision goes step by step, each step rounded once.
    stepwise = patch(video.bfloat16(), matrix)
    torch.testing.assert_close(patch(video, matrix), stepwise.float(), atol=0.03, rtol=0.03)
    back = unpatch(stepwise, matrix)
    torch.testing.assert_close(unpatch(stepwise.float(), matrix), back.float(), atol=0.1, rtol=0.03)
