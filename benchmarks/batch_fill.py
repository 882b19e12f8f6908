"""How full the batches of a GPU actor are, by places, calls and lengths of videos; without a GPU.

    python benchmarks/batch_fill.py [--batch 8] [--units-per-call 4] [--calls 4 8] [--seconds 4]

The pipeline's own queue (`pipelines/window_batches.py`) and as many threads as an actor has calls;
each brings blocks of units one after the other, at once, as where decoders are ahead. The tokenizer
sleeps for each batch. What a batch lacks in windows is padded, and costs as much as they do: the
share of places with a window is the share of the bare network's rate that is left.
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
from pipelines.window_batches import WindowBatches
from schemas.ids import WINDOWS_PER_UNIT
from schemas.windows import WindowSpan

# Windows of a video: clips of a few seconds, of half a minute, and films.
LENGTHS = {"1-3": (1, 3), "4-9": (4, 9), "10-30": (10, 30), "100-300": (100, 300)}


class Sleeper:
    """A tokenizer of one token a window, on what calls itself a GPU."""

    fingerprint = "0" * 64
    device = torch.device("meta")
    config = published()

    def __init__(self, seconds: float) -> None:
        self.batches = 0
        self._seconds = seconds

    def analyse(self, video_u8_BTHWC: Tensor, /) -> Analysis:
        """After a time, zeros."""
        time.sleep(self._seconds)
        self.batches += 1
        zeros = torch.zeros(len(video_u8_BTHWC), 1, 1, 1)
        return Analysis(codes_Bthw=zeros.long(), information_Bthw=zeros)


def blocks(windows: tuple[int, int], units_per_call: int) -> Iterator[list[DecodedUnit]]:
    """Blocks of the units of one video after the other."""
    rng = random.Random(0)
    units: list[DecodedUnit] = []
    for number in itertools.count():
        video = hashlib.sha256(str(number).encode()).hexdigest()[:20]
        left = range(rng.randint(*windows))
        while left:
            part, left = left[:WINDOWS_PER_UNIT], left[WINDOWS_PER_UNIT:]
            units.append(_unit(video, part))
            if len(units) == units_per_call:
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
    frames = np.zeros((len(spans), 1, 1, 1, 3), np.uint8)
    index = windows.start // WINDOWS_PER_UNIT
    return DecodedUnit(
        video=video, unit_index=index, path="", spans=tuple(spans), frames_NTHWC=frames
    )


def fill(
    windows: tuple[int, int], *, batch: int, calls: int, units_per_call: int, fixed: bool, s: float
) -> float:
    """Share of the places that had a window."""
    tokenizer = Sleeper(0.002)
    queue = WindowBatches(tokenizer, batch_size=batch, fixed_places=fixed)
    source, lock, until = blocks(windows, units_per_call), Lock(), time.monotonic() + s
    done: list[int] = []

    def call() -> None:
        while time.monotonic() < until:
            with lock:
                block = next(source)
            done.append(sum(len(list(found)) for found in queue.analyse(block)))  # pyright: ignore[reportArgumentType]

    threads = [Thread(target=call) for _ in range(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (tokenizer.batches * batch)


def main() -> None:
    """Print a row per length of videos."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    runtime = RunConfig().runtime
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--units-per-call", type=int, default=runtime.units_per_call)
    parser.add_argument("--calls", type=int, nargs="+", default=[runtime.calls_per_actor])
    parser.add_argument("--seconds", type=float, default=4.0)
    arguments = parser.parse_args()
    print("| windows of a video | calls | fixed places | anywhere |\n|---|---|---|---|")
    for (name, windows), calls in itertools.product(LENGTHS.items(), arguments.calls):
        shares = [
            fill(
                windows, batch=arguments.batch, calls=calls, fixed=fixed, s=arguments.seconds,
                units_per_call=arguments.units_per_call,
            )
            for fixed in (True, False)
        ]  # fmt: skip
        print(f"| {name} | {calls} | {shares[0]:.3f} | {shares[1]:.3f} |", flush=True)


if __name__ == "__main__":
    main()
