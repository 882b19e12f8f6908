"""Causal convolutions, norms and resampling of the base tokenizer.

Every 3-D convolution of the network is flat: 1xkxk or kx1x1. Both run as 2-D convolutions on a
view of the same memory when activations are channels-last (B, T, H, W, C in memory), which on a
CPU is 2 to 5 times faster than the 3-D kernels and on a GPU uses the better tuned ones.

Shapes: B videos, C channels, T frames, H rows, W columns. Module and parameter names are those of
the published checkpoint.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infotok_core import fused

__all__ = [
    "Downsample",
    "FrameNorm",
    "ResBlock",
    "SpatialConv",
    "TemporalConv",
    "Upsample",
    "factorized_conv",
    "fold_frames",
    "prepend_first_frame",
    "unfold_frames",
]

# Added to the variance of a frame.
_NORM_EPS = 1e-6


def fold_frames(x_BCTHW: Tensor) -> Tensor:
    """Frames as a batch, ``[B*T, C, H, W]``: a view when ``x`` is channels-last."""
    return x_BCTHW.transpose(1, 2).flatten(0, 1)


def unfold_frames(x_NCHW: Tensor, *, num_frames: int) -> Tensor:
    """Undo `fold_frames`; N = B * num_frames."""
    return x_NCHW.unflatten(0, (-1, num_frames)).transpose(1, 2)


def prepend_first_frame(x_BCTHW: Tensor, *, times: int) -> Tensor:
    """Repeat frame 0 in front, the causal padding in time."""
    # Spelt out, because `cat` of single frames would otherwise leave the channels-last order.
    x_BTHWC = x_BCTHW.permute(0, 2, 3, 4, 1)
    padded_BTHWC = torch.cat([x_BTHWC[:, :1]] * times + [x_BTHWC], dim=1)
    return padded_BTHWC.permute(0, 4, 1, 2, 3)


def _convolve(
    x_NCHW: Tensor,
    weight: Tensor,
    bias_C: Tensor | None,
    *,
    stride: int | tuple[int, int],
    padding: int = 0,
) -> Tensor:
    if bias_C is None or not fused.applies(x_NCHW):
        return F.conv2d(x_NCHW, weight, bias_C, stride=stride, padding=padding)
    y_NHWC = F.conv2d(x_NCHW, weight, None, stride=stride, padding=padding).permute(0, 2, 3, 1)
    return fused.add_bias(y_NHWC, bias_C).permute(0, 3, 1, 2)


class SpatialConv(nn.Module):
    """A 1 x k x k convolution within each frame, zero-padded at the four borders."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int = 1,
        padding: int = 0,
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.padding, self.stride = padding, stride
        # Holds the parameters under their published name and shape; it is never called.
        self.conv3d = nn.Conv3d(in_channels, out_channels, (1, kernel, kernel))

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """``[B, C', T, H', W']``."""
        y_NCHW = _convolve(
            fold_frames(x_BCTHW),
            self.conv3d.weight[:, :, 0],
            self.conv3d.bias,
            stride=self.stride,
            padding=self.padding,
        )
        return unfold_frames(y_NCHW, num_frames=x_BCTHW.shape[2])


class TemporalConv(nn.Module):
    """A 3 x 1 x 1 convolution over each pixel's past; frame 0 stands in for what was before it."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.conv3d = nn.Conv3d(in_channels, out_channels, (3, 1, 1))

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """``[B, C', T', H, W]``: T frames stay T at stride 1, 2k become k at stride 2."""
        # kernel - 1 frames of past, less what a stride looks ahead.
        padded = prepend_first_frame(x_BCTHW, times=2 + (1 - self.stride))
        weight, bias = self.conv3d.weight[..., 0], self.conv3d.bias
        y_BCTN = _convolve(padded.flatten(3), weight, bias, stride=(self.stride, 1))
        return y_BCTN.unflatten(3, x_BCTHW.shape[3:])


def factorized_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """A 3 x 3 x 3 receptive field in two flat steps: space, then time."""
    return nn.Sequential(
        SpatialConv(in_channels, out_channels, kernel=3, padding=1),
        TemporalConv(out_channels, out_channels),
    )


class FrameNorm(nn.Module):
    """Normalises each frame over channels and pixels, so that no frame sees a later one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels, eps=_NORM_EPS)

    def forward(self, x_BCTHW: Tensor, *, silu: bool = False) -> Tensor:
        """Same shape and dtype (bfloat16 under autocast); followed by SiLU if asked."""
        if fused.applies(x_BCTHW):
            return self._fused(x_BCTHW, silu=silu)
        y = unfold_frames(self.norm(fold_frames(x_BCTHW)), num_frames=x_BCTHW.shape[2])
        return F.silu(y) if silu else y

    def _fused(self, x_BCTHW: Tensor, *, silu: bool) -> Tensor:
        x_BTHWC = x_BCTHW.permute(0, 2, 3, 4, 1).contiguous()
        y_FLC = fused.norm_silu(
            x_BTHWC.flatten(2, 3).flatten(0, 1),
            self.norm.weight,
            self.norm.bias,
            eps=_NORM_EPS,
            silu=silu,
        )
        return y_FLC.view(x_BTHWC.shape).permute(0, 4, 1, 2, 3)


class ResBlock(nn.Module):
    """Norm, SiLU and a factorised convolution, twice, beside a skip connection."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = FrameNorm(in_channels)
        self.conv1 = factorized_conv(in_channels, out_channels)
        self.norm2 = FrameNorm(out_channels)
        self.conv2 = factorized_conv(out_channels, out_channels)
        self.nin_shortcut: nn.Module = (
            nn.Identity() if in_channels == out_channels else SpatialConv(in_channels, out_channels)
        )

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """``[B, out_channels, T, H, W]``."""
        h = self.conv1(self.norm1(x_BCTHW, silu=True))
        h = self.conv2(self.norm2(h, silu=True))
        return cast(Tensor, self.nin_shortcut(x_BCTHW) + h)


class Downsample(nn.Module):
    """Halves space, then time: a strided convolution beside an average."""

    def __init__(self, channels: int, *, temporal: bool, spatial: bool) -> None:
        super().__init__()
        self.temporal, self.spatial = temporal, spatial
        if spatial:
            self.conv1 = SpatialConv(channels, channels, kernel=3, stride=2)
        if temporal:
            self.conv2 = TemporalConv(channels, channels, stride=2)
        if spatial or temporal:
            self.conv3 = SpatialConv(channels, channels)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """T = 1 + 2k frames become 1 + k where time is halved; H and W become half, rounded up."""
        x = x_BCTHW
        if not (self.spatial or self.temporal):
            return x
        if self.spatial:
            padded = F.pad(fold_frames(x), (0, 1, 0, 1))
            average_NCHW = F.avg_pool2d(padded, 2, 2)
            frames = x.shape[2]
            x = self.conv1(unfold_frames(padded, num_frames=frames))
            x = x + unfold_frames(average_NCHW, num_frames=frames)
        if self.temporal:
            x = prepend_first_frame(x, times=1)
            x = self.conv2(x) + (x[:, :, 0::2] + x[:, :, 1::2]) / 2
        return cast(Tensor, self.conv3(x))


class Upsample(nn.Module):
    """Doubles time, then space: nearest neighbour plus a convolution of it."""

    def __init__(self, channels: int, *, temporal: bool, spatial: bool) -> None:
        super().__init__()
        self.temporal, self.spatial = temporal, spatial
        if temporal:
            self.conv1 = TemporalConv(channels, channels)
        if spatial:
            self.conv2 = SpatialConv(channels, channels, kernel=3, padding=1)
        if spatial or temporal:
            self.conv3 = SpatialConv(channels, channels)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """1 + k frames become 1 + 2k where time is doubled."""
        x = x_BCTHW
        if not (self.spatial or self.temporal):
            return x
        if self.temporal:
            # Frame 0 stands for one frame only, every later one for two.
            x = x.repeat_interleave(2, dim=2)[:, :, 1:] if x.shape[2] > 1 else x
            x = x + self.conv1(x)
        if self.spatial:
            frames = x.shape[2]
            large_NCHW = F.interpolate(fold_frames(x), scale_factor=2, mode="nearest")
            x = unfold_frames(large_NCHW, num_frames=frames)
            x = x + self.conv2(x)
        return cast(Tensor, self.conv3(x))
