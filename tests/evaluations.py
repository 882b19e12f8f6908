"""Small real videos to evaluate, flat, moving, noisy and broken ones, and a small network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from networks import toy_config
from torch import nn
from videos import numbered_frame, write_video

from infotok_core.checkpoint import save_directory
from infotok_core.network import build_network

__all__ = ["FRAMES", "SIDE", "WINDOWS", "write_evaluation_videos", "write_small_checkpoint"]

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


def write_small_checkpoint(
    folder: Path, *, latent_router: int = 0, budget_aware: bool = False
) -> Path:
    """A checkpoint of a network with random weights: its videos mean nothing, and cost little."""
    config = toy_config(latent_router=latent_router, budget_aware=budget_aware)
    network = build_network(config, seed=1).eval()
    if budget_aware:
        nn.init.normal_(network.budget_embed)
    if latent_router:
        # As it starts, the head says the same of every token.
        last: Any = network.information_head[-1]
        nn.init.normal_(last.conv3d.weight)
    save_directory(network, folder, card="# For tests\n")
    return folder
