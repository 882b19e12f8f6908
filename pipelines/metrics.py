"""How far a reconstruction is from its source: PSNR and SSIM as the published evaluation has them.

Shapes: T frames, H rows, W columns, C = 3 colours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.metrics import structural_similarity

__all__ = ["psnr_db", "ssim", "ssim_of_frames"]

_EXACT_DB = 100.0
"""PSNR given to a frame without any error; one step of one value in a 256 x 256 frame is 101 dB."""


def psnr_db(source_THWC: npt.NDArray[np.uint8], other_THWC: npt.NDArray[np.uint8]) -> float:
    """10 log10(255^2 / mse) of each frame, then the mean over frames; at most 100 per frame.

    Raises:
        ValueError: If the shapes differ or there is no frame.
    """
    _check(source_THWC, other_THWC)
    values: list[float] = []
    for source_HWC, other_HWC in zip(source_THWC, other_THWC, strict=True):
        error = source_HWC.astype(np.float32) - other_HWC
        mse = float(np.square(error).mean(dtype=np.float64))
        values.append(min(10 * math.log10(255**2 / mse), _EXACT_DB) if mse else _EXACT_DB)
    return sum(values) / len(values)


def ssim(source_THWC: npt.NDArray[np.uint8], other_THWC: npt.NDArray[np.uint8]) -> float:
    """Structural similarity (7 x 7 windows, colours apart) of each frame, then the mean.

    Raises:
        ValueError: If the shapes differ, or a side is shorter than 7 pixels.
    """
    values = ssim_of_frames(source_THWC, other_THWC)
    return sum(values) / len(values)


def ssim_of_frames(
    source_THWC: npt.NDArray[np.uint8], other_THWC: npt.NDArray[np.uint8]
) -> list[float]:
    """Structural similarity of each frame, as `ssim`; which frames it is asked with changes no bit.

    Raises:
        ValueError: If the shapes differ, or a side is shorter than 7 pixels.
    """
    _check(source_THWC, other_THWC)
    # Without further options it returns one float, whatever its annotation says.
    similarity: Callable[..., Any] = structural_similarity
    return [
        float(similarity(source_HWC, other_HWC, channel_axis=-1, data_range=255))
        for source_HWC, other_HWC in zip(source_THWC, other_THWC, strict=True)
    ]


def _check(source: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> None:
    if source.shape != other.shape or not len(source):
        raise ValueError(f"not two equally long videos: {source.shape} and {other.shape}")
