"""What a network makes of held-out clips, as images one can look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from infotok_core.network import Network
from infotok_core.recipe import Stage
from infotok_core.tokenizer import to_uint8
from infotok_core.validation import reconstruct_clip
from pipelines.video_writer import png_bytes

__all__ = ["write_samples"]

_CLIPS = 4


def write_samples(
    folder: Path, stem: str, network: Network, clips: Sequence[Tensor], stage: Stage
) -> None:
    """``{stem}.png``: a row for each of a few clips, its middle frame beside what came back.

    Columns: the original, all tokens, half of them (a base alone has no third).

    Args:
        clips: uint8 ``[T, H, W, 3]`` each, of one shape.
    """
    rows: list[np.ndarray] = []
    for index in np.linspace(0, len(clips) - 1, min(_CLIPS, len(clips))).astype(int):
        clip = clips[index]
        middle = clip.shape[0] // 2
        results = reconstruct_clip(network, clip, (0.5,), stage)
        shown = [to_uint8(video)[0, middle].cpu() for video in results.values()]
        rows.append(np.concatenate([clip[middle].numpy(), *(image.numpy() for image in shown)], 1))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stem}.png").write_bytes(png_bytes(np.ascontiguousarray(np.concatenate(rows))))
