"""How full the batches of a GPU actor are, by places, calls and lengths of videos; without a GPU.

    python benchmarks/batch_fill.py [--batch 8] [--calls 8 16] [--seconds 4] [--block-windows 10]

The pipeline's own queue (`pipelines/window_batches.py`) and as many threads as an actor has calls;
each brings blocks of units one after the other, at once, as where decoders are ahead. A block holds
whole units, as many as make up its windows: those of 64 MiB, as Ray makes them where a decode task
has so many videos; with 1, one unit. The tokenizer sleeps for each batch. What a batch lacks in
windows is padded, and costs as much as they do: the share of places with a window is the share of
the bare network's rate that is left.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import random
import time
from collections.abc import Iterator
from threading import Lock, Thread

import numpy as np
import torch
from torch import Tensor

from infotok_core.config import published
from infotok_core.tokenizer import Analysis
from pipelines.config import RunConfig
from pipelines.records import DecodedUnit
from pipelines.spreading import block_bytes, window_bytes
from pipelines.window_batches import WindowBatches
from schemas.ids import WINDOWS_PER_UNIT
from schemas.windows import WindowSpan

_SERIAL = itertools.count()
# Windows of a video: clips of a few seconds, of half a minute, and films.
LENGTHS = {"1-3": (1, 3), "4-9": (4, 9), "10-30": (10, 30), "100-300": (100, 300)}


class Sleeper:
    """A tokenizer of one token a window, on what calls itself a GPU. Counts until a time."""

    fingerprint = "0" * 64
    device = torch.device("meta")
    config = published()

    def __init__(self, seconds: float, until: float) -> None:
        self.places = self.windows = 0
        self._seconds, self._until = seconds, until

    def analyse(self, video_u8_BTHWC: Tensor, /) -> Analysis:
        """After a time, zeros."""
        time.sleep(self._seconds)
        if time.monotonic() < self._until:
            self.places += len(video_u8_BTHWC)
            # No two windows are the same; what pads a batch is one of them again.
            self.windows += len(video_u8_BTHWC.flatten(1).unique(dim=0))
        zeros = torch.zeros(len(video_u8_BTHWC), 1, 1, 1)
        return Analysis(codes_Bthw=zeros.long(), information_Bthw=zeros)


def blocks(windows: tuple[int, int], block_windows: int) -> Iterator[list[DecodedUnit]]:
    """Blocks of the units of one video after the other, of at least so many windows."""
    rng = random.Random(0)
    units: list[DecodedUnit] = []
    for number in itertools.count():
        video = hashlib.sha256(str(number).encode()).hexdigest()[:20]
        left = range(rng.randint(*windows))
        while left:
            part, left = left[:WINDOWS_PER_UNIT], left[WINDOWS_PER_UNIT:]
            units.append(_unit(video, part))
            if sum(len(unit.spans) for unit in units) >= block_windows:
                yield units
                units = []


def _unit(video: str, windows: range) -> DecodedUnit:
    spans = [
        WindowSpan(
            window_index=index, start_frame=index, num_frames=1,
            start_time_s=float(index), end_time_s=index + 1.0,
        )
        for index in windows
    ]  # fmt: skip
    serial = np.array([next(_SERIAL) for _ in spans], ">u4")
    frames = serial.view(np.uint8).reshape(-1, 4)[:, 1:].reshape(-1, 1, 1, 1, 3)
    index = windows.start // WINDOWS_PER_UNIT
    return DecodedUnit(
        video=video, unit_index=index, path="", spans=tuple(spans), frames_NTHWC=frames
    )


def fill(
    windows: tuple[int, int], *, batch: int, calls: int, block_windows: int, fixed: bool, s: float
) -> float:
    """Share of the places that had a window."""
    until = time.monotonic() + s
    tokenizer = Sleeper(0.002, until)
    queue = WindowBatches(tokenizer, batch_size=batch, fixed_places=fixed)
    source, lock = blocks(windows, block_windows), Lock()

    def call() -> None:
        while time.monotonic() < until:
            with lock:
                block = next(source)
            list(queue.analyse(block))

    threads = [Thread(target=call) for _ in range(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tokenizer.windows / tokenizer.places


def main() -> None:
    """Print a row per length of videos."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    config = RunConfig()
    parser.add_argument("--batch", type=int, default=8)
    block_windows = block_bytes(config) // window_bytes(config)
    parser.add_argument("--block-windows", type=int, default=block_windows)
    parser.add_argument("--calls", type=int, nargs="+", default=[config.runtime.calls_per_actor])
    parser.add_argument("--seconds", type=float, default=4.0)
    arguments = parser.parse_args()
    print("| windows of a video | calls | fixed places | anywhere |\n|---|---|---|---|")
    for (name, windows), calls in itertools.product(LENGTHS.items(), arguments.calls):
        shares = [
            fill(
                windows, batch=arguments.batch, calls=calls, fixed=fixed, s=arguments.seconds,
                block_windows=arguments.block_windows,
            )
            for fixed in (True, False)
        ]  # fmt: skip
        print(f"| {name} | {calls} | {shares[0]:.3f} | {shares[1]:.3f} |", flush=True)


if __name__ == "__main__":
    main()
