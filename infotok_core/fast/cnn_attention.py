"""The CNN's attention, one head as wide as all channels, for which libraries have no fast kernel.

Shapes: B windows, T frames, L = H*W pixels of a frame, C channels; F = B*T frames.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infotok_core.attention import SpatialAttention, TemporalAttention
from infotok_core.fast import ops
from infotok_core.fast.rows import rows_of, video_of
from infotok_core.fast.tiles import power_of_two

__all__ = ["FastSpatialAttention", "FastTemporalAttention"]

_MOST_PIXELS = 2048  # of a frame whose scores are all held at once
_MOST_VALUES = 32 * 512  # of all frames of a pixel, which a program of ours holds at once


class _FastSingleHead(nn.Module):
    def __init__(self, attention: SpatialAttention | TemporalAttention) -> None:
        super().__init__()
        self.norm, self.proj_out = attention.norm, attention.proj_out
        self.q, self.k, self.v = attention.q, attention.k, attention.v

    def projected(self, x_BCTHW: Tensor) -> list[Tensor]:
        """Queries, keys and values, ``[B, T, L, C]`` each."""
        h = self.norm(x_BCTHW)
        return [rows_of(cast(Tensor, layer(h))) for layer in (self.q, self.k, self.v)]

    def added(self, x_BCTHW: Tensor, y_BTLC: Tensor) -> Tensor:
        """The input and what attention found."""
        return x_BCTHW + self.proj_out(video_of(y_BTLC, x_BCTHW.shape[3:]))


class FastSpatialAttention(_FastSingleHead):
    """`SpatialAttention`, by products of whole frames where their scores are not too many."""

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Same shape."""
        q_BTLC, k_BTLC, v_BTLC = self.projected(x_BCTHW)
        if q_BTLC.shape[2] > _MOST_PIXELS:
            return self.added(x_BCTHW, F.scaled_dot_product_attention(q_BTLC, k_BTLC, v_BTLC))
        q_FLC, k_FLC, v_FLC = (part.flatten(0, 1) for part in (q_BTLC, k_BTLC, v_BTLC))
        score_FLL = torch.bmm(q_FLC, k_FLC.mT, out_dtype=torch.float32)
        weight_FLL = ops.softmax(score_FLL, q_FLC.dtype, scale=1 / math.sqrt(q_FLC.shape[-1]))
        return self.added(x_BCTHW, torch.bmm(weight_FLL, v_FLC).view_as(v_BTLC))


class FastTemporalAttention(_FastSingleHead):
    """`TemporalAttention`, a program a pixel where its frames fit."""

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Same shape."""
        q_BTLC, k_BTLC, v_BTLC = self.projected(x_BCTHW)
        if power_of_two(q_BTLC.shape[1], least=16) * q_BTLC.shape[3] <= _MOST_VALUES:
            return self.added(x_BCTHW, ops.attend_in_time(q_BTLC, k_BTLC, v_BTLC))
        q_BLTC, k_BLTC, v_BLTC = (part.transpose(1, 2) for part in (q_BTLC, k_BTLC, v_BTLC))
        y_BLTC = F.scaled_dot_product_attention(q_BLTC, k_BLTC, v_BLTC, is_causal=True)
        return self.added(x_BCTHW, y_BLTC.transpose(1, 2))
