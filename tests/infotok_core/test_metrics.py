from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from skimage.metrics import peak_signal_noise_ratio

from infotok_core.metrics import (
    frame_squared_errors,
    frechet_distance,
    mean_frame_psnr_db,
    psnr_db,
)
from pipelines import metrics as published_metrics


def videos(seed: int, *, spread: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng(seed)
    video = generator.integers(0, 256, (2, 5, 16, 24, 3))
    other = np.clip(video + generator.integers(-spread, spread + 1, video.shape), 0, 255)
    return torch.from_numpy(video.astype(np.uint8)), torch.from_numpy(other.astype(np.uint8))


@given(st.integers(0, 2**31), st.integers(1, 255))
def test_psnr_is_that_of_scikit_image(seed: int, spread: int):
    video, other = videos(seed, spread=spread)
    errors = frame_squared_errors(video, other)
    assert errors.shape == (2, 5)
    for window in range(2):
        ours = psnr_db(int(errors[window].sum()), video[window].numel())
        theirs = peak_signal_noise_ratio(video[window].numpy(), other[window].numpy())
        assert ours == pytest.approx(theirs, abs=1e-9)
        by_frame = mean_frame_psnr_db(errors[window].tolist(), video[window, 0].numel())
        published = published_metrics.psnr_db(video[window].numpy(), other[window].numpy())
        assert by_frame == pytest.approx(published, abs=1e-4)


def test_the_largest_error_does_not_overflow():
    black = torch.zeros((1, 1, 512, 512, 3), dtype=torch.uint8)
    errors = frame_squared_errors(black, black + 255)
    assert errors.item() == 255**2 * black.numel()
    assert psnr_db(errors.item(), black.numel()) == 0


def test_no_error_is_a_hundred_decibels_and_not_infinite():
    assert psnr_db(0, 12) == 100
    assert psnr_db(1, 10**12) == 100


def test_videos_that_do_not_match_are_refused():
    video, _ = videos(0)
    with pytest.raises(ValueError, match="expected uint8"):
        frame_squared_errors(video, video.float())
    with pytest.raises(ValueError, match="of one shape"):
        frame_squared_errors(video, video[:, :4])


@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(2, 9))
def test_the_frechet_distance_is_the_textbook_one(seed: int, size: int, count: int):
    generator = np.random.default_rng(seed)
    first, second = (generator.normal(size=(count + size, size)) for _ in range(2))
    means = first.mean(axis=0) - second.mean(axis=0)
    a, b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (first, second))
    wanted = means @ means + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert frechet_distance(first, second) == pytest.approx(wanted, rel=1e-6, abs=1e-6)


def test_the_frechet_distance_of_a_set_to_itself_is_zero_even_with_few_samples():
    features = np.random.default_rng(0).normal(size=(3, 40))
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(features, features + 2) == pytest.approx(40 * 4, rel=1e-6)


@pytest.mark.parametrize(("first", "second"), [((1, 4), (5, 4)), ((5, 4), (5, 3))])
def test_a_frechet_distance_needs_samples_of_one_kind(
    first: tuple[int, int], second: tuple[int, int]
):
    with pytest.raises(ValueError, match="two sets of at least two samples"):
        frechet_distance(np.zeros(first), np.zeros(second))
