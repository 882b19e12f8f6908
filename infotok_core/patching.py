"""Orthonormal Haar patches: space and time traded for channels, exactly both ways.

Shapes: B videos, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["patch", "unpatch"]

# 1/sqrt(2) as each precision holds it. The published filter taps are a buffer of the network, so
# they are rounded with it.
_TAPS = {torch.bfloat16: 0.70703125, torch.float16: 0.70703125}
_SCALE = 2 * math.sqrt(2)
# One step splits time, then height, then width; the inverse runs backwards.
_DIMS = (2, 3, 4)


def patch(video_BCTHW: Tensor, *, size: int) -> Tensor:
    """Trade ``size**3`` neighbouring samples for as many channels.

    Frame 0 is repeated ``size - 1`` times in front, so that 1 + k*size frames give 1 + k. Each of
    the log2(size) steps splits every channel into its 8 sub-bands, ordered LLL, LLH, LHL, ... HHH
    (time, height, width), the former channels innermost; the first is the plain mean of 2x2x2.

    Args:
        video_BCTHW: Floating point; T = 1 + k*size, H and W multiples of ``size``.
        size: A power of two; 1 changes nothing.
    """
    x = video_BCTHW
    if size > 1:
        x = torch.cat([x[:, :, :1].expand(-1, -1, size - 1, -1, -1), x], dim=2)
    for _ in range(int(math.log2(size))):
        bands = [x]
        for dim in _DIMS:
            bands = [half for band in bands for half in _split(band, dim)]
        x = torch.cat(bands, dim=1) / _SCALE
    return x


def unpatch(bands_BCTHW: Tensor, *, size: int) -> Tensor:
    """Undo `patch`: exact up to rounding for what `patch` made, and defined for any other input."""
    x = bands_BCTHW
    for _ in range(int(math.log2(size))):
        bands = list((x * _SCALE).chunk(8, dim=1))
        for dim in reversed(_DIMS):
            bands = [_join(bands[i], bands[i + 1], dim) for i in range(0, len(bands), 2)]
        x = bands[0]
    return x[:, :, size - 1 :]


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
