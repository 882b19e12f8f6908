"""A video as rows of channels, as our kernels take it, and back.

Shapes: B windows, T frames, L = H*W pixels of a frame, C channels.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["rows_of", "video_of"]


def rows_of(x_BCTHW: Tensor) -> Tensor:
    """``[B, T, L, C]``, contiguous."""
    return x_BCTHW.permute(0, 2, 3, 4, 1).contiguous().flatten(2, 3)


def video_of(x_BTLC: Tensor, size: tuple[int, ...]) -> Tensor:
    """Undo `rows_of`, for frames of that size (H, W)."""
    return x_BTLC.unflatten(2, size).permute(0, 4, 1, 2, 3)
