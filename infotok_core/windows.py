"""Windows over a long video: where they start, how they are padded, how their seams are blended.

Pure integers and uint8 frames. Shapes: T frames, H rows, W columns, C = 3 colours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "OverlapCounting",
    "Padding",
    "PaddingRule",
    "blend",
    "expected_elbo",
    "pad",
    "plan_padding",
    "plan_windows",
    "trim",
]

PaddingRule = Literal["tail", "reference"]
"""``tail``: frames are added behind alone, so a causal network's tokens of real frames stay what
they were. ``reference``: as published, half of them in front, and to a multiple of 8."""

OverlapCounting = Literal["corrected", "reference"]
"""``corrected``: a latent frame whose frames the window before had already is not counted again.
``reference``: every window counts entirely (facts B2)."""

# The published pipeline pads frames to multiples of this many pixels ...
_PIXEL_MULTIPLE = 16
# ... and to 1 + k * this many frames, although 4 would do.
_REFERENCE_FRAME_MULTIPLE = 8


def plan_windows(num_frames: int, *, window: int, overlap: int = 0) -> list[range]:
    """The frames of each window; the last may be shorter.

    Raises:
        ValueError: If a number is out of range.
    """
    if num_frames < 1 or window < 1 or not 0 <= overlap < window:
        raise ValueError(f"no windows of {window} with overlap {overlap} in {num_frames} frames")
    step = window - overlap
    count = 1 if num_frames <= window else -(-(num_frames - window) // step) + 1
    return [range(i * step, min(i * step + window, num_frames)) for i in range(count)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Padding:
    """Frames, rows and columns added on each side."""

    front: int
    back: int
    top: int
    bottom: int
    left: int
    right: int


def plan_padding(
    num_frames: int, height: int, width: int, *, rule: PaddingRule = "tail", temporal: int = 4
) -> Padding:
    """What a window needs to fit the network: 1 + k*temporal frames, multiples of 16 pixels.

    Args:
        num_frames: Of this window.
        height: Pixels.
        width: Pixels.
        rule: See `PaddingRule`.
        temporal: Temporal compression of the network.
    """
    multiple = _REFERENCE_FRAME_MULTIPLE if rule == "reference" else temporal
    frames, rows, columns = (
        -(num_frames - 1) % multiple,
        -height % _PIXEL_MULTIPLE,
        -width % _PIXEL_MULTIPLE,
    )
    front = frames // 2 if rule == "reference" else 0
    return Padding(
        front=front,
        back=frames - front,
        top=rows // 2,
        bottom=rows - rows // 2,
        left=columns // 2,
        right=columns - columns // 2,
    )


def pad(video_THWC: NDArray[np.uint8], padding: Padding) -> NDArray[np.uint8]:
    """Add black borders, and repeat the first and last frame."""
    bordered = np.pad(
        video_THWC,
        ((0, 0), (padding.top, padding.bottom), (padding.left, padding.right), (0, 0)),
    )
    return np.pad(bordered, ((padding.front, padding.back), (0, 0), (0, 0), (0, 0)), mode="edge")


def trim(video_THWC: NDArray[np.uint8], padding: Padding) -> NDArray[np.uint8]:
    """Undo `pad`."""
    t, h, w, _ = video_THWC.shape
    return video_THWC[
        padding.front : t - padding.back,
        padding.top : h - padding.bottom,
        padding.left : w - padding.right,
    ]


def blend(before_THWC: NDArray[np.uint8], after_THWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cross-fade the frames that two windows share; exactly the published arithmetic.

    Frame i of o is (o - i)/(o + 1) of the earlier window, truncated (not rounded) to uint8.
    """
    overlap = len(before_THWC)
    share = (overlap - np.arange(overlap)) / (overlap + 1)
    share_T111 = share[:, None, None, None]
    mixed = share_T111 * before_THWC + (1 - share_T111) * after_THWC
    return np.clip(mixed, 0, 255).astype(np.uint8)


def expected_elbo(
    informations: list[NDArray[np.float32]],
    *,
    overlap: int = 0,
    counting: OverlapCounting = "corrected",
    temporal: int = 4,
) -> float:
    """E[ELBO]: the mean over windows of their mean information, as the paper's equation 4 uses it.

    Windows are not weighted by their length.

    Args:
        informations: ``[t, h, w]`` of each window of one video, in order.
        overlap: Frames a window shares with the one before.
        counting: See `OverlapCounting`.
        temporal: Temporal compression.

    Raises:
        ValueError: If there are no windows.
    """
    if not informations:
        raise ValueError("no windows to take the mean of")
    # Latent frame 0 holds one frame, every later one ``temporal``.
    seen = 1 + (overlap - 1) // temporal if overlap and counting == "corrected" else 0
    counted = [e if i == 0 else e[seen:] for i, e in enumerate(informations)]
    return float(np.mean([e.mean(dtype=np.float64) for e in counted if e.size]))
