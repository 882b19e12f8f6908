from __future__ import annotations

import pytest
import torch
from torch import Tensor
from training_helpers import Ramps, small_stage

from infotok_core.config import TokenizerConfig
from infotok_core.network import Network, build_network
from infotok_core.objective import to_pixels
from infotok_core.patching import patch, unpatch
from infotok_core.validation import psnr_by_rate, reconstruct_clip

STAGE = small_stage()


def test_psnr_falls_with_the_rate_where_dropped_tokens_matter(toy_config: TokenizerConfig):
    network = build_network(toy_config, seed=3).eval()
    clips = Ramps(STAGE).batch(0)
    fit_last_layer(network, clips)
    psnr = psnr_by_rate(network, clips, (1.0, 0.5, 0.01), STAGE)
    assert set(psnr) == {1.0, 0.5, 0.01}
    assert psnr[1.0] > psnr[0.5] + 0.5
    assert psnr[1.0] > psnr[0.01] + 2


def fit_last_layer(network: Network, clips_BTHWC: Tensor) -> None:
    """Train what turns the decoder's features into pixels, on clips with all their tokens."""
    video, last = to_pixels(clips_BTHWC), network.decoder.conv_out
    features: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, given: features.append(given[0].detach()))
    with torch.no_grad():
        network(video)
    hook.remove()
    optimizer = torch.optim.Adam(last.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        shown = unpatch(last(features[0]), network.decoder.unpatcher.matrix)
        (shown - video).square().mean().backward()
        optimizer.step()


def test_pixels_lie_between_minus_one_and_one():
    video = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 1, 1, 1, 3)
    pixels = to_pixels(video)
    assert pixels.shape == (1, 3, 1, 1, 1)
    assert pixels.flatten().tolist() == pytest.approx([-1.0, 1 / 255, 1.0], abs=1e-6)


def test_an_error_too_small_to_be_seen_counts_as_100_db(toy_config: TokenizerConfig):
    network = build_network(toy_config, seed=3).eval()
    # Always twice as bright as white, and clamped: white exactly.
    bands = patch(torch.full((1, 3, 5, 16, 16), 2.0), network.decoder.unpatcher.matrix)[
        0, :, 0, 0, 0
    ]
    with torch.no_grad():
        parameters = dict(network.decoder.conv_out.named_parameters())
        for parameter in parameters.values():
            parameter.zero_()
        [*(p for name, p in parameters.items() if name.endswith("bias"))][-1].copy_(bands)
    white = torch.full((5, 16, 16, 3), 255, dtype=torch.uint8)
    assert psnr_by_rate(network, [white], (1.0,), STAGE)[1.0] == pytest.approx(100)


def test_a_base_alone_keeps_everything(toy_config: TokenizerConfig):
    network = build_network(toy_config, seed=3).eval()
    base = small_stage(part="base")
    clip = Ramps(base).batch(0)[0]
    results = reconstruct_clip(network, clip, (1.0, 0.5), base)
    assert set(results) == {1.0}
    assert results[1.0].shape == (1, 3, 5, 16, 16)
    assert results[1.0].abs().max() <= 1


def test_psnr_is_that_of_the_pooled_error(toy_config: TokenizerConfig):
    network = build_network(toy_config, seed=3).eval()
    clips = list(Ramps(STAGE).batch(0))
    found = psnr_by_rate(network, clips, (1.0,), STAGE)[1.0]
    errors = []
    for clip in clips:
        video = clip.permute(3, 0, 1, 2).double() / 127.5 - 1
        video_hat = reconstruct_clip(network, clip, (), STAGE)[1.0][0].double()
        errors.append(10 * torch.log10(4 / (video_hat - video).square().mean()).item())
    assert found == pytest.approx(sum(errors) / len(errors), abs=1e-3)
