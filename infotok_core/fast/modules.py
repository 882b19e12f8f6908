"""The network's layers with prepared weights, one for one in the place of the plain ones.

Matrices are rounded to the path's precision, once; norms' and convolutions' vectors stay float32.

What is exact in real numbers is done once instead of at every call: the bias of a spatial
convolution goes through the temporal one behind it, the value's two projections are one.

Shapes: B windows, C channels, T frames, H rows, W columns, L = H*W; N = T*L tokens, E rotary pairs.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infotok_core.compressor import TransformerLayer
from infotok_core.fast import ops
from infotok_core.layers import FrameNorm, ResBlock, SpatialConv, TemporalConv

__all__ = ["FastConvolutions", "FastFrameNorm", "FastResBlock", "FastTransformerLayer"]


class FastFrameNorm(nn.Module):
    """`FrameNorm`, moments and everything behind them in one pass each."""

    def __init__(self, norm: FrameNorm) -> None:
        super().__init__()
        self.eps = norm.norm.eps
        self.register_buffer("weight", norm.norm.weight.detach().float())
        self.register_buffer("bias", norm.norm.bias.detach().float())

    weight: Tensor
    bias: Tensor

    def forward(self, x_BCTHW: Tensor, *, silu: bool = False) -> Tensor:
        """Same shape; see `FrameNorm`."""
        x_BTHWC = x_BCTHW.permute(0, 2, 3, 4, 1).contiguous()
        y_BTLC = ops.norm_silu(
            x_BTHWC.flatten(2, 3), self.weight, self.bias, eps=self.eps, silu=silu
        )
        return y_BTLC.view(x_BTHWC.shape).permute(0, 4, 1, 2, 3)


class FastResBlock(nn.Module):
    """`ResBlock`: the skip connection is added where the second convolution is summed."""

    def __init__(self, block: ResBlock, dtype: torch.dtype) -> None:
        super().__init__()
        self.norm1, self.norm2 = FastFrameNorm(block.norm1), FastFrameNorm(block.norm2)
        self.conv1, self.conv2 = (FastConvolutions(p, dtype) for p in (block.conv1, block.conv2))
        self.nin_shortcut = block.nin_shortcut

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """See `ResBlock`."""
        h = self.conv1(self.norm1(x_BCTHW, silu=True))
        return self.conv2(self.norm2(h, silu=True), self.nin_shortcut(x_BCTHW))


class FastConvolutions(nn.Module):
    """`factorized_conv`: 1x3x3 by the library, then 3x1x1 by our kernel, with the bias of both."""

    def __init__(self, pair: nn.Sequential, dtype: torch.dtype) -> None:
        super().__init__()
        spatial, temporal = cast(SpatialConv, pair[0]).conv3d, cast(TemporalConv, pair[1]).conv3d
        assert spatial.bias is not None
        assert temporal.bias is not None
        kernel = spatial.weight.detach()[:, :, 0]
        self.register_buffer("kernel", kernel.to(dtype, memory_format=torch.channels_last))
        taps_KCD = temporal.weight.detach()[..., 0, 0].permute(2, 1, 0)
        # Every tap sees a frame that has the bias: the causal padding repeats a frame, it is no 0.
        bias_D = temporal.bias.detach().double()
        bias_D = bias_D + spatial.bias.detach().double() @ taps_KCD.double().sum(0)
        self.register_buffer("taps", taps_KCD.contiguous().to(dtype))
        self.register_buffer("bias", bias_D.float())

    kernel: Tensor
    taps: Tensor
    bias: Tensor

    def forward(self, x_BCTHW: Tensor, skip_BDTHW: Tensor | None = None) -> Tensor:
        """``[B, D, T, H, W]``, ``skip`` added."""
        batch, _, frames, height, width = x_BCTHW.shape
        folded = x_BCTHW.transpose(1, 2).flatten(0, 1)
        h_FDHW = F.conv2d(folded, self.kernel, padding=1)
        h_BTLD = h_FDHW.permute(0, 2, 3, 1).reshape(batch, frames, height * width, -1)
        skip = None
        if skip_BDTHW is not None:
            skip = skip_BDTHW.permute(0, 2, 3, 4, 1).reshape(batch, frames, height * width, -1)
        y_BTLD = ops.causal_conv(h_BTLD.contiguous(), self.taps, self.bias, skip)
        return y_BTLD.view(batch, frames, height, width, -1).permute(0, 4, 1, 2, 3)


class FastTransformerLayer(nn.Module):
    """`TransformerLayer`: rotation and attention by our kernels, on tokens as they lie."""

    def __init__(self, layer: TransformerLayer, dtype: torch.dtype) -> None:
        super().__init__()
        attention = layer.attention
        self.heads = attention.heads
        self.double_projection = attention.double_projection
        self.attention_norm, self.ffn_norm = layer.attention_norm, layer.ffn_norm
        self.out_proj, self.mlp = attention.mha.out_proj, layer.mlp
        weight = attention.mha.in_proj_weight.detach()
        bias = attention.mha.in_proj_bias.detach()
        first_weight, first_bias = weight.clone(), bias.clone()
        if self.double_projection:
            value, shift = weight.chunk(3)[2].double(), bias.chunk(3)[2].double()
            first_weight.chunk(3)[2].copy_(value @ value)
            first_bias.chunk(3)[2].copy_(value @ shift + shift)
        self.register_buffer("weight", first_weight.to(dtype))
        self.register_buffer("bias", first_bias.to(dtype))
        # Of q and k, to be multiplied from the right: [2, C, C] and [2, 1, C].
        again = weight.unflatten(0, (3, -1))[:2].transpose(1, 2).contiguous()
        self.register_buffer("weight_again", again.to(dtype))
        self.register_buffer("bias_again", bias.view(3, 1, -1)[:2].contiguous().to(dtype))

    weight: Tensor
    bias: Tensor
    weight_again: Tensor
    bias_again: Tensor

    def forward(self, x_BNC: Tensor, turns_NE2: Tensor, *, num_frames: int) -> Tensor:
        """Same shape.

        Args:
            x_BNC: Contiguous.
            turns_NE2: float32, cosine then sine.
            num_frames: Latent frames in the sequence.
        """
        qkv_BNC = F.linear(_normed(self.attention_norm, x_BNC), self.weight, self.bias)
        v_BNC = qkv_BNC.chunk(3, dim=-1)[2]
        turned_2BNC = ops.rotate(qkv_BNC, turns_NE2)
        if self.double_projection:
            flat = turned_2BNC.flatten(1, 2)
            again = torch.baddbmm(self.bias_again, flat, self.weight_again)
            turned_2BNC = again.view(turned_2BNC.shape)
        q_BNC, k_BNC = turned_2BNC
        y = ops.attend(q_BNC, k_BNC, v_BNC, heads=self.heads, num_frames=num_frames)
        x_BNC = x_BNC + self.out_proj(y)
        return x_BNC + self.mlp(_normed(self.ffn_norm, x_BNC))


def _normed(norm: nn.Module, x_BNC: Tensor) -> Tensor:
    weight = cast(Tensor, norm.weight)
    return F.rms_norm(x_BNC, weight.shape, weight, cast(float, norm.eps))
