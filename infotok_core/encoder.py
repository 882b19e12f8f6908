"""Video to continuous latent: the causal CNN encoder.

Shapes: B videos, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from infotok_core.attention import SpatialAttention, TemporalAttention
from infotok_core.config import TokenizerConfig
from infotok_core.layers import Downsample, FrameNorm, ResBlock, factorized_conv
from infotok_core.patching import Patcher

__all__ = ["Encoder", "Middle"]


class Middle(nn.Module):
    """The lowest resolution, the only place where the CNN has attention."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResBlock(channels, channels)
        self.attn_1 = nn.Sequential(SpatialAttention(channels), TemporalAttention(channels))
        self.block_2 = ResBlock(channels, channels)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Same shape."""
        return self.block_2(self.attn_1(self.block_1(x_BCTHW)))


class _Level(nn.Module):
    def __init__(self, blocks: list[nn.Module], downsample: Downsample) -> None:
        super().__init__()
        self.block = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        for block in self.block:
            x_BCTHW = block(x_BCTHW)
        return self.downsample(x_BCTHW)


class Encoder(nn.Module):
    """``[B, 3, T, H, W]`` in [-1, 1] to ``[B, z_channels, t, h, w]``; causal in time."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.patcher = Patcher(config.patch_size)
        channels = config.channels
        self.conv_in = factorized_conv(3 * config.patch_size**3, channels)
        self.down = nn.ModuleList()
        for level, multiple in enumerate(config.channels_mult):
            blocks: list[nn.Module] = []
            for _ in range(config.num_res_blocks):
                blocks.append(ResBlock(channels, config.channels * multiple))
                channels = config.channels * multiple
            temporal, spatial = config.downsampling(level)
            self.down.append(
                _Level(blocks, Downsample(channels, temporal=temporal, spatial=spatial))
            )
        self.mid = Middle(channels)
        self.norm_out = FrameNorm(channels)
        self.conv_out = factorized_conv(channels, config.z_channels)

    def forward(self, video_BCTHW: Tensor) -> Tensor:
        """The latent; t = 1 + (T - 1) / temporal compression."""
        x = self.patcher(video_BCTHW)
        # Decides the memory layout of all that follows; see layers.py.
        x = self.conv_in(x.contiguous(memory_format=torch.channels_last_3d))
        for level in self.down:
            x = level(x)
        return self.conv_out(self.norm_out(self.mid(x), silu=True))
