"""How good a network is on held-out clips, while and after it is trained.

Shapes: T frames, H rows, W columns, C = 3 colours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from infotok_core.information import token_information
from infotok_core.network import Network
from infotok_core.objective import keep_tokens, to_pixels
from infotok_core.recipe import Stage

__all__ = ["psnr_by_rate", "reconstruct_clip"]

_ALL_KEPT = 1.0


@torch.inference_mode()
def reconstruct_clip(
    network: Network, clip_u8_THWC: Tensor, rates: Iterable[float], stage: Stage
) -> dict[float, Tensor]:
    """A clip at several rates, ``[1, C, T, H, W]`` each, clamped to [-1, 1].

    Args:
        network: In evaluation mode.
        clip_u8_THWC: T = 1 + 4k, sides multiples of 8, on any device.
        rates: Shares to keep, in (0, 1]; 1 keeps every token.
        stage: Its part and selection apply: a base alone keeps everything.
    """
    device = next(network.parameters()).device
    video = to_pixels(clip_u8_THWC[None].to(device))
    latent = network.encode(video)
    if stage.part == "base":
        whole = network.decode(network.embed(network.quantize(latent).codes_BCTHW))
        return {_ALL_KEPT: whole.clamp(-1, 1)}
    codes = network.quantize(network.compress(latent)).codes_BCTHW
    whole = network.decode_codes(codes)
    config = network.config
    information = token_information(
        video, whole, temporal=config.temporal_compression, spatial=config.spatial_compression
    )
    results = {_ALL_KEPT: whole.clamp(-1, 1)}
    for rate in rates:
        if rate < _ALL_KEPT:
            rate_B = torch.tensor([rate], dtype=torch.float64, device=device)
            keep = keep_tokens(stage, information, rate_B)
            if network.is_budget_aware:
                codes = network.quantize(network.compress(latent, keep)).codes_BCTHW
            results[rate] = network.decode_codes(codes * keep, keep).clamp(-1, 1)
    return results


@torch.inference_mode()
def psnr_by_rate(
    network: Network, clips: Iterable[Tensor], rates: Iterable[float], stage: Stage
) -> dict[float, float]:
    """Mean over clips of the PSNR (dB) of a clip's pooled error, every clip at the same rate.

    Args:
        network: In evaluation mode.
        clips: uint8 ``[T, H, W, 3]`` each; at least one.
        rates: See `reconstruct_clip`.
        stage: See `reconstruct_clip`.
    """
    sums: dict[float, list[float]] = {}
    rates = tuple(rates)
    for clip in clips:
        for rate, video_hat in reconstruct_clip(network, clip, rates, stage).items():
            video = to_pixels(clip[None].to(video_hat.device))
            # Pixels span [-1, 1]: a peak of 2, squared.
            error = (video_hat - video).square().mean().item() / 4
            sums.setdefault(rate, []).append(-10 * math.log10(max(error, 1e-10)))
    return {rate: sum(values) / len(values) for rate, values in sums.items()}
