"""Clips that take no time, and a stage small enough for a test."""

from __future__ import annotations

import torch
from torch import Tensor

from infotok_core.recipe import Stage

__all__ = ["Ramps", "small_stage"]


class Ramps:
    """Smooth moving ramps, other ones at each step unless ``still``; the share of one rank."""

    def __init__(self, stage: Stage, *, rank: int = 0, size: int = 1, still: bool = False) -> None:
        self._stage, self._rank, self._size, self._still = stage, rank, size, still

    def batch(self, step: int) -> Tensor:
        stage, step = self._stage, 0 if self._still else step
        share = stage.batch_size // self._size
        t = torch.arange(stage.clip_frames)[:, None, None]
        y, x = torch.arange(stage.crop)[:, None], torch.arange(stage.crop)
        first = step * stage.batch_size + self._rank * share
        ramps = [
            (40 + 20 * b + 3 * t + 5 * y + (b % 3) * x) % 256 for b in range(first, first + share)
        ]
        return torch.stack(ramps).unsqueeze(-1).repeat(1, 1, 1, 1, 3).to(torch.uint8)


def small_stage(**changes: object) -> Stage:
    """Ten steps of two clips of 5 frames of 16 x 16."""
    values: dict[str, object] = {
        "steps": 10, "frames": 5, "crop": 16, "batch_size": 2, "log_every": 2, "warmup_steps": 2,
        "learning_rate": 2e-3,
    }  # fmt: skip
    return Stage(**{**values, **changes})  # type: ignore[arg-type]
