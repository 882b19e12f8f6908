"""The CNN's layers with prepared weights, one for one in the place of the plain ones.

Matrices are rounded to the path's precision, once; vectors stay float32.

Shapes: B windows, C, D channels, T frames, H rows, W columns, L = H*W, K taps, F = B*T frames.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infotok_core.fast import ops
from infotok_core.fast.folding import (
    channels_last,
    identity,
    spatial,
    taps_then,
    temporal,
    then,
    through,
)
from infotok_core.fast.rows import rows_of, video_of
from infotok_core.layers import (
    Downsample,
    FrameNorm,
    ResBlock,
    SpatialConv,
    TemporalConv,
    Upsample,
    fold_frames,
    unfold_frames,
)

__all__ = [
    "FastConvolutions",
    "FastDownsample",
    "FastFrameNorm",
    "FastPointwise",
    "FastResBlock",
    "FastUpsample",
]


class FastFrameNorm(nn.Module):
    """`FrameNorm`, moments and everything behind them in one pass each."""

    def __init__(self, norm: FrameNorm) -> None:
        super().__init__()
        self.eps = norm.norm.eps
        self.register_buffer("weight", norm.norm.weight.detach().float())
        self.register_buffer("bias", norm.norm.bias.detach().float())

    weight: Tensor
    bias: Tensor

    def forward(
        self, x_BCTHW: Tensor, *, silu: bool = False, sums_F2: Tensor | None = None
    ) -> Tensor:
        """Same shape; see `FrameNorm`. The sums of the frames spare a pass over them."""
        sums_F2 = _sums_of(x_BCTHW) if sums_F2 is None else sums_F2
        y_BTLC = ops.norm_silu(
            rows_of(x_BCTHW), self.weight, self.bias, sums_F2, eps=self.eps, silu=silu
        )
        return video_of(y_BTLC, x_BCTHW.shape[3:])


class FastResBlock(nn.Module):
    """`ResBlock`: the skip connection is added where the second convolution is summed."""

    def __init__(self, block: ResBlock, dtype: torch.dtype) -> None:
        super().__init__()
        self.norm1, self.norm2 = FastFrameNorm(block.norm1), FastFrameNorm(block.norm2)
        self.conv1, self.conv2 = (FastConvolutions(p, dtype) for p in (block.conv1, block.conv2))
        self.nin_shortcut = block.nin_shortcut

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """See `ResBlock`."""
        h, sums_F2 = self.conv1.convolve(self.norm1(x_BCTHW, silu=True), wants_sums=True)
        h = self.norm2(h, silu=True, sums_F2=sums_F2)
        return _with_sums(*self.conv2.convolve(h, self.nin_shortcut(x_BCTHW), wants_sums=True))


class FastConvolutions(nn.Module):
    """`factorized_conv`: 1x3x3 by the library, then 3x1x1 by our kernel, with the bias of both."""

    def __init__(self, pair: nn.Sequential, dtype: torch.dtype) -> None:
        super().__init__()
        kernel_DCHW, bias_D = spatial(cast(SpatialConv, pair[0]))
        self.register_buffer("kernel", channels_last(kernel_DCHW, dtype))
        taps_KCD, last_D = temporal(cast(TemporalConv, pair[1]))
        self.register_buffer("taps", taps_KCD.to(dtype))
        self.register_buffer("bias", (last_D + through(bias_D, taps_KCD)).float())

    kernel: Tensor
    taps: Tensor
    bias: Tensor

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """``[B, D, T, H, W]``."""
        return _with_sums(*self.convolve(x_BCTHW, wants_sums=True))

    def convolve(
        self, x_BCTHW: Tensor, skip_BDTHW: Tensor | None = None, *, wants_sums: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """``[B, D, T, H, W]``, ``skip`` added, and its sums; see `ops.causal_conv`."""
        folded = fold_frames(x_BCTHW).to(self.kernel.dtype)
        h_BDTHW = unfold_frames(
            F.conv2d(folded, self.kernel, padding=1), num_frames=x_BCTHW.shape[2]
        )
        skip = None if skip_BDTHW is None else rows_of(skip_BDTHW)
        y_BTLD, sums_F2 = ops.causal_conv(
            rows_of(h_BDTHW), self.taps, self.bias, skip, wants_sums=wants_sums
        )
        return video_of(y_BTLD, x_BCTHW.shape[3:]), sums_F2


class FastPointwise(nn.Module):
    """A 1x1 `SpatialConv` as the matrix product that it is, in the precision of its weights."""

    def __init__(self, conv: SpatialConv, dtype: torch.dtype) -> None:
        super().__init__()
        kernel_DCHW, bias_D = spatial(conv)
        self.register_buffer("weight", kernel_DCHW[..., 0, 0].to(dtype))
        self.register_buffer("bias", bias_D.to(dtype))

    weight: Tensor
    bias: Tensor

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """``[B, D, T, H, W]``."""
        rows = x_BCTHW.movedim(1, -1).to(self.weight.dtype)
        return F.linear(rows, self.weight, self.bias).movedim(-1, 1)


class FastDownsample(nn.Module):
    """`Downsample`: nothing in it bends, so each of its steps is one convolution.

    The average is a part of the kernel beside it, the pointwise layer a part of the last one.
    """

    def __init__(self, down: Downsample, dtype: torch.dtype) -> None:
        super().__init__()
        self.temporal, self.spatial = down.temporal, down.spatial
        pointwise = spatial(down.conv3)
        before = pointwise[1].new_zeros(len(pointwise[1]))
        if self.spatial:
            narrow_DCHW, before = spatial(down.conv1)
            # Reaches a row and a column too far up and left, so that the padding is symmetric.
            kernel_DCHW = F.pad(narrow_DCHW, (1, 0, 1, 0))
            kernel_DCHW[:, :, 1:3, 1:3] += identity(before)[..., None, None] / 4
            if not self.temporal:
                kernel_DCHW, before = then(kernel_DCHW, before, *pointwise)
            self.register_buffer("kernel", channels_last(kernel_DCHW, dtype))
            self.register_buffer("shift", before.to(dtype))
        if self.temporal:
            taps_KCD, bias_D = temporal(down.conv2)
            taps_KCD[1:] += identity(bias_D) / 2
            bias_D = bias_D + through(before, taps_KCD)
            taps_KCD, bias_D = taps_then(taps_KCD, bias_D, *pointwise)
            self.register_buffer("taps", taps_KCD.to(dtype))
            self.register_buffer("bias", bias_D.float())

    kernel: Tensor
    shift: Tensor
    taps: Tensor
    bias: Tensor

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """See `Downsample`; H and W are even."""
        x = x_BCTHW
        if self.spatial:
            shift = None if self.temporal else self.shift
            y_NCHW = F.conv2d(fold_frames(x), self.kernel, shift, stride=2, padding=1)
            x = unfold_frames(y_NCHW, num_frames=x.shape[2])
        return _in_time(x, self.taps, self.bias, stride=2) if self.temporal else x


class FastUpsample(nn.Module):
    """`Upsample`: one convolution for each step, at the resolution that they start from.

    A 3x3 kernel over doubled pixels meets four of the small ones, differently for each of the four
    pixels one becomes: four 2x2 kernels, less than half the work.
    """

    def __init__(self, up: Upsample, dtype: torch.dtype) -> None:
        super().__init__()
        self.temporal, self.spatial = up.temporal, up.spatial
        pointwise = spatial(up.conv3)
        if self.temporal:
            taps_KCD, bias_D = temporal(up.conv1)
            taps_KCD[2] += identity(bias_D)
            if not self.spatial:
                taps_KCD, bias_D = taps_then(taps_KCD, bias_D, *pointwise)
            self.register_buffer("taps", taps_KCD.to(dtype))
            self.register_buffer("bias", bias_D.float())
        if self.spatial:
            kernel_DCHW, bias_D = spatial(up.conv2)
            kernel_DCHW[:, :, 1, 1] += identity(bias_D)
            kernel_DCHW, bias_D = then(kernel_DCHW, bias_D, *pointwise)
            # The rows an upper pixel sees of the one above and its own; of its own and the next.
            pairs = kernel_DCHW.new_tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])
            small = torch.einsum("aih,bjw,dchw->abdcij", pairs, pairs, kernel_DCHW)
            self.register_buffer("kernel", channels_last(small.flatten(0, 2), dtype))
            self.register_buffer("shift", bias_D.float())

    taps: Tensor
    bias: Tensor
    kernel: Tensor
    shift: Tensor

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """See `Upsample`."""
        x = x_BCTHW
        if self.temporal:
            x = _in_time(x, self.taps, self.bias, repeat=True)
        return self._double(x) if self.spatial else x

    def _double(self, x_BCTHW: Tensor) -> Tensor:
        y_NDHW = F.conv2d(fold_frames(x_BCTHW), self.kernel, padding=1)
        out_FHWC, sums_F2 = ops.double(y_NDHW.permute(0, 2, 3, 1).contiguous(), self.shift)
        out = unfold_frames(out_FHWC.permute(0, 3, 1, 2), num_frames=x_BCTHW.shape[2])
        return _with_sums(out, sums_F2)


def _in_time(
    x_BCTHW: Tensor, taps_KCD: Tensor, bias_D: Tensor, *, stride: int = 1, repeat: bool = False
) -> Tensor:
    """`ops.causal_conv` of a video."""
    y_BTLD, sums_F2 = ops.causal_conv(
        rows_of(x_BCTHW), taps_KCD, bias_D, stride=stride, repeat=repeat, wants_sums=True
    )
    return _with_sums(video_of(y_BTLD, x_BCTHW.shape[3:]), sums_F2)


def _with_sums(x_BCTHW: Tensor, sums_F2: Tensor | None) -> Tensor:
    """Kept on the tensor itself: the plain network's code lies between here and the norm.

    Nothing may be written into it afterwards.
    """
    x_BCTHW.frame_sums_F2 = sums_F2  # pyright: ignore[reportAttributeAccessIssue]
    return x_BCTHW


def _sums_of(x_BCTHW: Tensor) -> Tensor | None:
    """What `_with_sums` kept; nothing of a tensor that was computed from such a one."""
    return getattr(x_BCTHW, "frame_sums_F2", None)
