"""Attention: within a frame, back in time, and over all earlier frames at once.

Shapes: B videos, C channels, T frames, H rows, W columns; N = T*H*W tokens in (t, h, w) raster
order, G heads of D channels, L = H*W pixels or tokens of a frame.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infotok_core.layers import FrameNorm, SpatialConv

__all__ = ["SpatialAttention", "TemporalAttention", "block_causal_attention"]


def block_causal_attention(
    q_BGND: Tensor, k_BGND: Tensor, v_BGND: Tensor, *, num_frames: int
) -> Tensor:
    """Attention in which a token sees its own frame entirely and every frame before it.

    One call per frame over the growing prefix: nothing of size N x N exists, and about half the
    work of masked dense attention is done.

    Args:
        q_BGND: Queries; N a multiple of ``num_frames``.
        k_BGND: Keys.
        v_BGND: Values.
        num_frames: Latent frames in the sequence.
    """
    return _frame_by_frame(q_BGND.unflatten(2, (num_frames, -1)), k_BGND, v_BGND)


# Scripted, so that a traced export keeps the loop and takes any number of frames. Sizes are read
# off the shapes: an integer argument would be frozen at the value it was traced with.
@torch.jit.script_if_tracing
def _frame_by_frame(q_BGTLD: Tensor, k_BGND: Tensor, v_BGND: Tensor) -> Tensor:
    length = q_BGTLD.shape[3]
    frames = [
        F.scaled_dot_product_attention(
            q_BGTLD[:, :, frame],
            k_BGND[:, :, : (frame + 1) * length],
            v_BGND[:, :, : (frame + 1) * length],
        )
        for frame in range(q_BGTLD.shape[2])
    ]
    return torch.cat(frames, dim=2)


class _SingleHead(nn.Module):
    """Norm, projections and residual shared by the two kinds; one head over all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = FrameNorm(channels)
        self.q = SpatialConv(channels, channels)
        self.k = SpatialConv(channels, channels)
        self.v = SpatialConv(channels, channels)
        self.proj_out = SpatialConv(channels, channels)


class SpatialAttention(_SingleHead):
    """Each pixel looks at all pixels of its frame."""

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Same shape."""
        h = self.norm(x_BCTHW)
        # Frames in the place of heads: the fast kernels want four dimensions.
        q_BTLC, k_BTLC, v_BTLC = (
            layer(h).permute(0, 2, 3, 4, 1).flatten(2, 3) for layer in (self.q, self.k, self.v)
        )
        y_BTLC = F.scaled_dot_product_attention(q_BTLC, k_BTLC, v_BTLC)
        y_BCTHW = y_BTLC.unflatten(2, x_BCTHW.shape[3:]).permute(0, 4, 1, 2, 3)
        return x_BCTHW + self.proj_out(y_BCTHW)


class TemporalAttention(_SingleHead):
    """Each pixel looks at itself in its own and earlier frames."""

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Same shape."""
        h = self.norm(x_BCTHW)
        # Pixels in the place of heads.
        q_BLTC, k_BLTC, v_BLTC = (
            layer(h).permute(0, 3, 4, 2, 1).flatten(1, 2) for layer in (self.q, self.k, self.v)
        )
        y_BLTC = F.scaled_dot_product_attention(q_BLTC, k_BLTC, v_BLTC, is_causal=True)
        y_BCTHW = y_BLTC.unflatten(1, x_BCTHW.shape[3:]).permute(0, 4, 3, 1, 2)
        return x_BCTHW + self.proj_out(y_BCTHW)
