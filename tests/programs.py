"""A fixed-rate tokenizer that is none of ours: block averages in 256 steps, as TorchScript."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SETTINGS = {"codebook_size": 256, "fill_index": 128}


class BlockEncoder(nn.Module):
    """The grey mean of each cell of 4 x 8 x 8, the first frame alone; 0 is black, 255 white."""

    def forward(self, video: Tensor) -> tuple[Tensor, Tensor]:
        first = video[:, :, :1].repeat(1, 1, 3, 1, 1)
        padded = torch.cat([first, video], dim=2)
        grey = F.avg_pool3d(padded.mean(1, keepdim=True), [4, 8, 8])
        return ((grey[:, 0] + 1) * 127.5).round().int(), grey


class BlockDecoder(nn.Module):
    """Paints the cells."""

    def forward(self, indices: Tensor) -> Tensor:
        grey = (indices.float() / 127.5 - 1).unsqueeze(1)
        frames = F.interpolate(grey, scale_factor=[4.0, 8.0, 8.0])
        return frames[:, :, 3:].repeat(1, 3, 1, 1, 1)


def write_programs(
    folder: Path,
    *,
    encoder: nn.Module | None = None,
    decoder: nn.Module | None = None,
    **settings: Any,
) -> Path:
    """The directory of a pair; further keywords go into ``tokenizer.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(encoder or BlockEncoder()).save(str(folder / "encoder.jit"))
        torch.jit.script(decoder or BlockDecoder()).save(str(folder / "decoder.jit"))
    (folder / "tokenizer.json").write_text(json.dumps({**SETTINGS, **settings}))
    return folder
