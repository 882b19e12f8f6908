"""Units of noise, a real network for them, and a tokenizer that only counts windows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from networks import toy_config
from torch import Tensor

from infotok_core.checkpoint import Checkpoint, fingerprint
from infotok_core.network import build_network
from infotok_core.tokenizer import Analysis, Tokenizer
from pipelines.records import DecodedUnit
from schemas.windows import WindowSpan

FRAMES = 9
CONFIG = toy_config(decoder_layers=1)


def make_tokenizer() -> Tokenizer:
    network = build_network(CONFIG, seed=1).eval()
    return Tokenizer(Checkpoint(network=network, fingerprint=fingerprint(network), ema_loss=None))


class CountingTokenizer:
    """On a device that takes batches: gives every window its number, and knows no pixels.

    The device is torch's ``meta``, which has shapes and no memory; how many windows of one batch
    fit is said by ``room``.
    """

    def __init__(self, room: int = 64) -> None:
        self.fingerprint = "c" * 64
        self.device = torch.device("meta")
        self.config = CONFIG
        self.room = room
        self.batches: list[tuple[int, ...]] = []

    def analyse(self, video_u8_BTHWC: Tensor, /) -> Analysis:
        batch, frames, height, width, _ = video_u8_BTHWC.shape
        if batch > self.room:
            raise torch.cuda.OutOfMemoryError(f"{batch} windows")
        first = sum(shape[0] for shape in self.batches)
        self.batches.append(tuple(video_u8_BTHWC.shape))
        numbers = torch.arange(first, first + batch).view(batch, 1, 1, 1)
        codes = numbers.expand(batch, 1 + (frames - 1) // 4, height // 8, width // 8)
        return Analysis(codes_Bthw=codes, information_Bthw=codes.float())


def frames(seed: int, height: int = 16, width: int = 16) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (FRAMES, height, width, 3), np.uint8)


def unit_of(
    windows: Sequence[np.ndarray], *, index: int = 0, valid: Sequence[int] | None = None
) -> DecodedUnit:
    spans = tuple(
        WindowSpan(
            window_index=number,
            start_frame=FRAMES * number,
            num_frames=count,
            start_time_s=float(number),
            end_time_s=number + 1.0,
        )
        for number, count in enumerate(valid or [FRAMES] * len(windows))
    )
    return DecodedUnit(
        video=f"{index:032x}",
        unit_index=0,
        path=f"units/{index}",
        spans=spans,
        frames_NTHWC=np.stack(windows),
    )
