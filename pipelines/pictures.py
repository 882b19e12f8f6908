"""What a person looks at: which tokens were kept, panels side by side, a sheet of a few frames.

Shapes: T frames, P panels, H rows, W columns, C = 3 colours; lower-case t, h, w the latent grid.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["contact_sheet", "kept_tokens", "side_by_side"]

_GAP = 4
"""Pixels between panels; even, because yuv420p halves both sides."""
_BACKGROUND = 24
_DARK = 0.28
# A warm tint lifts kept cells off the dark even where the picture is black itself; more of it on
# the border, so that cells can be counted.
_TINT = np.array([255, 200, 60], np.float32)
_TINT_SHARE, _BORDER_SHARE = 0.18, 0.40
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def kept_tokens(
    frames_THWC: npt.NDArray[np.uint8],
    mask_thw: npt.NDArray[np.bool_],
    *,
    temporal: int,
    spatial: int,
) -> npt.NDArray[np.uint8]:
    """Frames drawn dark and grey, but bright and in colour where a token was kept.

    Args:
        frames_THWC: The frames of a window, uint8, from its first on.
        mask_thw: True where a token was kept.
        temporal: Frames of a latent frame after the first, which holds one.
        spatial: Pixels of a cell's sides.

    Raises:
        ValueError: If the mask does not cover the frames.
    """
    num_frames, height, width, _ = frames_THWC.shape
    # Latent frame of each frame: 0 for frame 0, else 1 + (f - 1) // 4.
    latent_T = (np.arange(num_frames) + temporal - 1) // temporal
    if latent_T[-1] >= len(mask_thw) or mask_thw.shape[1:] != (height // spatial, width // spatial):
        raise ValueError(f"a mask {mask_thw.shape} does not cover frames {frames_THWC.shape}")
    kept_tHW = mask_thw.repeat(spatial, axis=1).repeat(spatial, axis=2)
    border_HW = (np.arange(height)[:, None] % spatial == 0) | (np.arange(width) % spatial == 0)
    share_HW1 = np.where(border_HW, _BORDER_SHARE, _TINT_SHARE).astype(np.float32)[..., None]
    drawn = np.empty_like(frames_THWC)
    for index, frame_HWC in enumerate(frames_THWC):
        bright_HWC = frame_HWC * (1 - share_HW1) + _TINT * share_HW1
        dark_HW1 = (frame_HWC @ _LUMA)[..., None] * _DARK
        drawn[index] = np.where(kept_tHW[latent_T[index]][..., None], bright_HWC, dark_HW1)
    return drawn


def side_by_side(panels_TPHWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The panels of each frame in one row, uint8 [T, H, P*W + gaps, C]."""
    num_frames, num_panels, height, width, colours = panels_TPHWC.shape
    total = num_panels * width + (num_panels - 1) * _GAP
    row = np.full((num_frames, height, total, colours), _BACKGROUND, np.uint8)
    for panel in range(num_panels):
        left = panel * (width + _GAP)
        row[:, :, left : left + width] = panels_TPHWC[:, panel]
    return row


def contact_sheet(panels_TPHWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """One column per frame, one row per panel, uint8 [rows, columns, C]."""
    columns = [np.concatenate([_gap_below(p) for p in panels_PHWC]) for panels_PHWC in panels_TPHWC]
    height = columns[0].shape[0]
    gap = np.full((height, _GAP, 3), _BACKGROUND, np.uint8)
    parts = [part for column in columns for part in (column, gap)]
    return np.concatenate(parts[:-1], axis=1)[: height - _GAP]


def _gap_below(panel_HWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.pad(panel_HWC, ((0, _GAP), (0, 0), (0, 0)), constant_values=_BACKGROUND)
