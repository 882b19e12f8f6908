from __future__ import annotations

import torch

from infotok_core.information import token_information


def test_information_is_the_mean_error_of_the_frames_and_pixels_a_token_adds():
    generator = torch.Generator().manual_seed(0)
    video, other = torch.rand(2, 2, 3, 9, 16, 24, generator=generator).unbind(0)
    information = token_information(video, other, temporal=4, spatial=8)
    assert information.shape == (2, 3, 2, 3)
    error = (video - other).abs()
    torch.testing.assert_close(information[1, 0, 1, 2], error[1, :, 0, 8:, 16:].mean())
    torch.testing.assert_close(information[0, 2, 0, 1], error[0, :, 5:9, :8, 8:16].mean())


def test_a_perfect_reconstruction_carries_none():
    video = torch.rand(1, 3, 1, 8, 8)
    assert token_information(video, video, temporal=4, spatial=8).tolist() == [[[[0.0]]]]
