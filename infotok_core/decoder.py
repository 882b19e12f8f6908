"""Continuous latent to video: the causal CNN decoder.

Shapes: B videos, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from infotok_core.config import TokenizerConfig
from infotok_core.encoder import Middle
from infotok_core.layers import FrameNorm, ResBlock, Upsample, factorized_conv
from infotok_core.patching import Unpatcher

__all__ = ["Decoder"]


class _Level(nn.Module):
    def __init__(self, blocks: list[nn.Module], upsample: Upsample) -> None:
        super().__init__()
        self.block = nn.ModuleList(blocks)
        self.upsample = upsample

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        for block in self.block:
            x_BCTHW = block(x_BCTHW)
        return self.upsample(x_BCTHW)


class Decoder(nn.Module):
    """``[B, z_channels, t, h, w]`` to ``[B, 3, T, H, W]``; unclamped, causal in time."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.unpatcher = Unpatcher(config.patch_size)
        channels = config.channels * config.channels_mult[-1]
        self.conv_in = factorized_conv(config.z_channels, channels)
        self.mid = Middle(channels)
        levels: list[_Level] = []
        for level in reversed(range(len(config.channels_mult))):
            blocks: list[nn.Module] = []
            for _ in range(config.num_res_blocks + 1):
                blocks.append(ResBlock(channels, config.channels * config.channels_mult[level]))
                channels = config.channels * config.channels_mult[level]
            temporal, spatial = config.upsampling(level)
            levels.append(_Level(blocks, Upsample(channels, temporal=temporal, spatial=spatial)))
        # Numbered by level in the checkpoint, so the last entry runs first.
        self.up = nn.ModuleList(reversed(levels))
        self.norm_out = FrameNorm(channels)
        self.conv_out = factorized_conv(channels, 3 * config.patch_size**3)

    def forward(self, latent_BCTHW: Tensor) -> Tensor:
        """The video; T = 1 + (t - 1) * temporal compression."""
        x = latent_BCTHW.contiguous(memory_format=torch.channels_last_3d)
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            x = level(x)
        return self.unpatcher(self.conv_out(self.norm_out(x, silu=True)))
