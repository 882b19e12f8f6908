"""Orthonormal Haar patches: space and time traded for channels, exactly both ways.

In float32 all steps are one multiplication with an orthonormal matrix. In half precision each step
rounds as the published one does.

Shapes: B videos, C channels, T frames, H rows, W columns; K = size**3 samples of a patch and as
many sub-bands, P patches.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Patcher", "Unpatcher", "haar_matrix", "patch", "unpatch"]

# 1/sqrt(2) as each precision holds it. The published filter taps are a buffer of the network, so
# they are rounded with it.
_TAPS = {torch.bfloat16: 0.70703125, torch.float16: 0.70703125}
_SCALE = 2 * math.sqrt(2)
# One step splits time, then height, then width; the inverse runs backwards.
_DIMS = (2, 3, 4)


class _Haar(nn.Module):
    """Its matrix is a constant, no weight: it lies in no checkpoint and is never rounded alone."""

    def __init__(self, size: int) -> None:
        super().__init__()
        # Made on the CPU even inside `torch.device("meta")`: a load fills parameters, not this.
        self.register_buffer("matrix", haar_matrix(size), persistent=False)

    matrix: Tensor


class Patcher(_Haar):
    """`patch` in the precision of the network."""

    def forward(self, video_BCTHW: Tensor) -> Tensor:
        """See `patch`."""
        return patch(video_BCTHW.to(self.matrix.dtype), self.matrix)


class Unpatcher(_Haar):
    """`unpatch` in the precision of the network: autocast would put the video into bfloat16."""

    def forward(self, bands_BCTHW: Tensor) -> Tensor:
        """See `unpatch`."""
        return unpatch(bands_BCTHW.to(self.matrix.dtype), self.matrix)


def patch(video_BCTHW: Tensor, matrix_KK: Tensor) -> Tensor:
    """Trade ``size**3`` neighbouring samples for as many channels.

    Frame 0 is repeated ``size - 1`` times in front, so that 1 + k*size frames give 1 + k. Each of
    the log2(size) steps splits every channel into its 8 sub-bands, ordered LLL, LLH, LHL, ... HHH
    (time, height, width), the former channels innermost; the first is the plain mean of 2x2x2.

    Args:
        video_BCTHW: Floating point; T = 1 + k*size, H and W multiples of ``size``.
        matrix_KK: `haar_matrix` of that size.
    """
    size = _size(matrix_KK)
    x = video_BCTHW
    if size == 1:
        return x
    x = torch.cat([x[:, :, :1].expand(-1, -1, size - 1, -1, -1), x], dim=2)
    if x.dtype == torch.float32:
        return _patch_at_once(x, matrix_KK)
    for _ in range(int(math.log2(size))):
        x = _step(x)
    return x


def unpatch(bands_BCTHW: Tensor, matrix_KK: Tensor) -> Tensor:
    """Undo `patch`: exact up to rounding for what `patch` made, and defined for any other input."""
    size = _size(matrix_KK)
    if size == 1:
        return bands_BCTHW
    if bands_BCTHW.dtype == torch.float32:
        return _unpatch_at_once(bands_BCTHW, matrix_KK)[:, :, size - 1 :]
    x = bands_BCTHW
    for _ in range(int(math.log2(size))):
        bands = list((x * _SCALE).chunk(8, dim=1))
        for dim in reversed(_DIMS):
            bands = [_join(bands[i], bands[i + 1], dim) for i in range(0, len(bands), 2)]
        x = bands[0]
    return x[:, :, size - 1 :]


def haar_matrix(size: int) -> Tensor:
    """``[K, K]`` float32 on the CPU: row k gives sub-band k of a patch in (t, h, w) raster order.

    Args:
        size: A power of two; 1 changes nothing.
    """
    x = torch.eye(size**3, dtype=torch.float32, device="cpu").view(-1, 1, size, size, size)
    for _ in range(int(math.log2(size))):
        x = _step(x)
    return x.flatten(1).T


def _size(matrix_KK: Tensor) -> int:
    # int: a program is traced for one size of patch, whatever the sides of the video.
    return round(int(matrix_KK.shape[0]) ** (1 / 3))


def _patch_at_once(x_BCTHW: Tensor, matrix_KK: Tensor) -> Tensor:
    size = _size(matrix_KK)
    patches = x_BCTHW.unflatten(4, (-1, size)).unflatten(3, (-1, size)).unflatten(2, (-1, size))
    # B C t p h p w p -> B t h w C (p p p)
    samples = patches.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(5)
    with torch.autocast(x_BCTHW.device.type, enabled=False):
        bands = F.linear(samples, matrix_KK)
    # Sub-bands outermost, colours innermost.
    return bands.transpose(4, 5).flatten(4).permute(0, 4, 1, 2, 3)


def _unpatch_at_once(bands_BCTHW: Tensor, matrix_KK: Tensor) -> Tensor:
    size = _size(matrix_KK)
    bands = bands_BCTHW.permute(0, 2, 3, 4, 1).unflatten(4, (size**3, -1)).transpose(4, 5)
    with torch.autocast(bands_BCTHW.device.type, enabled=False):
        # The inverse is the transpose, scaled: the matrix has orthogonal rows of length size**-1.5.
        samples = F.linear(bands.contiguous(), matrix_KK.T * size**3)
    patches = samples.unflatten(5, (size, size, size)).permute(0, 4, 1, 5, 2, 6, 3, 7)
    return patches.flatten(6, 7).flatten(4, 5).flatten(2, 3)


def _step(x: Tensor) -> Tensor:
    bands = [x]
    for dim in _DIMS:
        bands = [half for band in bands for half in _split(band, dim)]
    return torch.cat(bands, dim=1) / _SCALE


def _split(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    even, odd = x.unfold(dim, 2, 2).unbind(-1)
    tap = _TAPS.get(x.dtype, math.sqrt(0.5))
    # One rounding per step, as a filter that accumulates in float32 has.
    even, odd = even.float(), odd.float()
    return ((even + odd) * tap).to(x.dtype), ((even - odd) * tap).to(x.dtype)


def _join(low: Tensor, high: Tensor, dim: int) -> Tensor:
    tap = _TAPS.get(low.dtype, math.sqrt(0.5))
    wide_low, wide_high = low.float(), high.float()
    pair = torch.stack([(wide_low + wide_high) * tap, (wide_low - wide_high) * tap], dim=dim + 1)
    return pair.flatten(dim, dim + 1).to(low.dtype)
