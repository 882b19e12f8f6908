"""Exact errors of uint8 video, and the distance between two sets of features.

Squared errors are whole numbers and are added as such: no batch, device or order changes a PSNR.

Shapes: B windows, T frames, H rows, W columns, C = 3 colours; N samples of D features.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["EXACT_DB", "frame_squared_errors", "frechet_distance", "mean_frame_psnr_db", "psnr_db"]

EXACT_DB = 100.0
"""PSNR of what has no error at all; one step of one value in a 256 x 256 frame is 101 dB."""

_PEAK = 255


def frame_squared_errors(video_BTHWC: Tensor, other_BTHWC: Tensor) -> Tensor:
    """Sum of squared differences of each frame, int64 ``[B, T]``, on the videos' device.

    Raises:
        ValueError: If one is not uint8, or the shapes differ.
    """
    if video_BTHWC.dtype != torch.uint8 or other_BTHWC.dtype != torch.uint8:
        raise ValueError(f"expected uint8 videos, not {video_BTHWC.dtype} and {other_BTHWC.dtype}")
    if video_BTHWC.shape != other_BTHWC.shape or video_BTHWC.dim() != 5:
        raise ValueError(
            f"not two videos [B, T, H, W, C] of one shape: {list(video_BTHWC.shape)} and "
            f"{list(other_BTHWC.shape)}"
        )
    difference = video_BTHWC.to(torch.int16) - other_BTHWC
    return difference.to(torch.int32).square_().sum(dim=(2, 3, 4), dtype=torch.int64)


def psnr_db(squared_error: float, values: int) -> float:
    """10 log10(255^2 / mse) of ``values`` colour values; at most `EXACT_DB`.

    Args:
        squared_error: Their summed squared error on the scale 0 .. 255.
        values: Frames * rows * columns * colours, >= 1.
    """
    if squared_error <= 0:
        return EXACT_DB
    return min(10 * math.log10(_PEAK**2 * values / squared_error), EXACT_DB)


def mean_frame_psnr_db(squared_errors_T: list[int], values_per_frame: int) -> float:
    """PSNR of each frame, then the mean: the published evaluation (facts section 7)."""
    frames = [psnr_db(error, values_per_frame) for error in squared_errors_T]
    return sum(frames) / len(frames)


def frechet_distance(first_ND: NDArray[np.float64], second_ND: NDArray[np.float64]) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^1/2) of two sets seen as Gaussians; >= 0.

    With I3D features of videos it is FVD. Few samples make it large whatever the videos are: it is
    comparable between sets of equal size alone.

    Args:
        first_ND: At least two samples; their number may differ from the other's.
        second_ND: Of the same D.

    Raises:
        ValueError: If there are fewer than two samples in a set, or D differs.
    """
    if first_ND.shape[1:] != second_ND.shape[1:] or min(len(first_ND), len(second_ND)) < 2:
        raise ValueError(
            f"a Frechet distance needs two sets of at least two samples: "
            f"{first_ND.shape} and {second_ND.shape}"
        )
    means = first_ND.mean(axis=0) - second_ND.mean(axis=0)
    first, second = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (first_ND, second_ND))
    # tr (S1 S2)^1/2 = tr (S1^1/2 S2 S1^1/2)^1/2, whose argument is symmetric: no complex roots.
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    mixed = np.linalg.eigvalsh(root @ second @ root)
    trace = float(np.trace(first) + np.trace(second) - 2 * np.sqrt(np.clip(mixed, 0, None)).sum())
    return max(float(means @ means) + trace, 0.0)
