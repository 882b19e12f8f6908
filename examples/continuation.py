"""Windows continued by a world model, and written as videos beside what the corpus holds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from world_model import Cache, WorldModel

from pipelines.dataset import TokenDataset
from pipelines.video_writer import VideoWriter

__all__ = ["BEGIN", "continue_window", "draw"]

BEGIN = 65535
"""Begins a document: of the ids that no corpus uses."""


@torch.no_grad()
def continue_window(
    model: WorldModel, sample: dict[str, Any], *, frames: int, options: argparse.Namespace
) -> dict[str, Any]:
    """The sample with everything behind its first ``frames`` latent frames drawn from the model."""
    grid = model.grid
    end = sample["grid"][0] * grid.h * grid.w
    given = int((sample["positions"][:, 0] < frames).sum())
    tokens = [BEGIN, *sample["tokens"][:given].tolist()]
    where = [(-1, -1, -1), *map(tuple, sample["positions"][:given].tolist())]
    # The place of the first drawn token is given, too: the model is asked only behind it.
    following = sample["positions"][given : given + 1]
    place = int(grid.place(following)) if len(following) else frames * grid.h * grid.w
    cache: Cache = []
    new = 0
    while place < end:
        asked = [*where[new + 1 :], grid.position(place)]
        ids, own, asked_for = (
            torch.tensor([values], device=options.device)
            for values in (tokens[new:], where[new:], asked)
        )
        length = ids.shape[1]
        mask = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
        read = model.hidden(ids, own, asked_for, mask=None if new else mask, cache=cache)
        token, way = model.sample_next(read[0, -1], temperature=options.temperature)
        new = len(tokens)
        tokens.append(min(token, options.num_codes - 1))
        where.append(grid.position(place))
        place += way
    return {**sample, "tokens": torch.tensor(tokens[1:]), "positions": torch.tensor(where[1:])}


def draw(options: argparse.Namespace, corpus: str, model: WorldModel) -> Path:
    """Write a held-out window as the corpus holds it, and as it was continued, side by side."""
    dataset = TokenDataset(corpus, seed=None, videos=lambda video: video in options.held_videos)
    sample = next(s for s in dataset if s["grid"][0] == model.grid.t)
    drawn = continue_window(model, sample, frames=model.grid.t - options.draw, options=options)
    frames = [dataset.detokenise(s, checkpoint=options.checkpoint) for s in (sample, drawn)]
    path = options.out / f"{Path(corpus).name}-{sample['clip_id']}.mp4"
    both = np.concatenate(frames, axis=2)
    with VideoWriter(path, width=both.shape[2], height=both.shape[1], fps=sample["fps"]) as video:
        video.write(both)
    return path
