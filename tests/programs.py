"""Fixed-rate tokenizers that are none of ours, as TorchScript: block averages, and an FSQ base."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infotok_core.config import TokenizerConfig
from infotok_core.network import Network, build_network

SETTINGS = {"codebook_size": 256, "fill_index": 128}


def block_codes(video: Tensor) -> tuple[Tensor, Tensor]:
    """The grey mean of each cell of 4 x 8 x 8, the first frame alone; 0 is black, 255 white."""
    first = video[:, :, :1].repeat(1, 1, 3, 1, 1)
    padded = torch.cat([first, video], dim=2)
    grey = F.avg_pool3d(padded.mean(1, keepdim=True), [4, 8, 8])
    return ((grey[:, 0] + 1) * 127.5).round().int(), grey


class BlockEncoder(nn.Module):
    """`block_codes`."""

    def forward(self, video: Tensor) -> tuple[Tensor, Tensor]:
        return block_codes(video)


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


class FsqEncoder(nn.Module):
    """Of a base: indices and codes, as the official program gives."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, video: Tensor) -> tuple[Tensor, Tensor]:
        codes, indices = self.network.quantize(self.network.encode(video))
        return indices, codes


class Inverse(nn.Module):
    """Indices to codes."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.quantizer = network.quantizer

    def forward(self, indices: Tensor) -> Tensor:
        return self.quantizer.decode(indices)


class FsqDecoder(nn.Module):
    """Of a base, in the parts of the official program: ``post_quant_conv`` and ``decoder``."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.inv_quant = Inverse(network)
        self.post_quant_conv = network.post_quant_conv
        self.decoder = network.decoder

    def forward(self, indices: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(self.inv_quant(indices)))


def write_fsq_programs(folder: Path, config: TokenizerConfig, *, frozen: bool = False) -> Path:
    """Programs of a small base with random weights; frozen, the decoder has no parts any more."""
    base = build_network(dataclasses.replace(config, transformer=None), seed=9).eval()
    folder.mkdir()
    video = torch.zeros(1, 3, 5, 16, 24)
    indices = base.tokenize(video).indices_BTHW
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(FsqEncoder(base), video, check_trace=False).save(
            str(folder / "encoder.jit")
        )
        decoder = torch.jit.trace(FsqDecoder(base).eval(), indices, check_trace=False)
        if frozen:
            decoder = torch.jit.freeze(decoder)
        decoder.save(str(folder / "decoder.jit"))
    return folder
