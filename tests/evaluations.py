"""Small real videos to evaluate: flat, moving and noisy ones, and a broken one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from videos import numbered_frame, write_video

__all__ = ["FRAMES", "SIDE", "WINDOWS", "write_evaluation_videos"]

FRAMES, SIDE = 5, 32
WINDOWS = {"flat.mp4": 1, "moving.mp4": 3, "noisy.mp4": 2}
"""Full windows of each video that can be decoded."""


def write_evaluation_videos(folder: Path) -> Path:
    """Videos of 5-frame windows, 32 x 32 pixels, one of them with a tail."""
    folder.mkdir(exist_ok=True)
    noise = np.random.default_rng(7).integers(0, 256, (10, SIDE, SIDE, 3)).astype(np.uint8)
    flat = np.full((SIDE, SIDE, 3), 90, np.uint8)
    write_video(folder / "flat.mp4", [flat] * 5)
    write_video(
        folder / "moving.mp4", [numbered_frame(n, width=SIDE, height=SIDE) for n in range(17)]
    )
    write_video(folder / "noisy.mp4", list(noise))
    write_video(folder / "short.mp4", 3)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder
