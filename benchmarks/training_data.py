"""What clips for training cost, streamed and from memory, against a plain decoding loop.

    python benchmarks/training_data.py [FOLDER] [--videos 24] [--workers 2] [--json FILE]

The plain loop is what one would write first: PyAV on one thread, every frame to RGB, one random
crop of each 17 frames. Everything is counted in CPU-seconds (user + system, all processes), because
wall time says little on a shared machine; the ratios are the result. Clips are 17 x 128 x 128, a
batch has 64, videos are scaled to a short side of 256. Without FOLDER it takes
../shared/data/clips256/train.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import torch

from pipelines.config import RunConfig, SourceConfig, StorageConfig
from pipelines.sources import open_source
from pipelines.training_data import ClipsConfig, StreamClips, open_clips

SHARED = Path(os.environ.get("INFOTOK_SHARED", Path(__file__).parents[2] / "shared")) / "data"
FRAMES, CROP, BATCH, SIZE = 17, 128, 64, 256
WARM_UP_STEPS = 8
"""16 lanes of blocks of 32 clips: after eight steps every lane has dealt a block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way to get clips. ``ratio``: CPU-seconds per clip, over those of the plain loop."""

    name: str
    num_clips: int
    cpu_ms_per_clip: float
    ratio: float
    batches_per_s: float


def main() -> None:
    """Time, print, and write down."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=SHARED / "clips256" / "train")
    parser.add_argument("--videos", type=int, default=24, help="evenly spread over the folder")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = sorted(path for path in arguments.folder.resolve().iterdir() if path.is_file())
        chosen = paths[:: max(1, len(paths) // arguments.videos)][: arguments.videos]
        for path in chosen:
            (Path(folder) / path.name).symlink_to(path)
        rows = measure(Path(folder), chosen, steps=arguments.steps, workers=arguments.workers)
    header = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "versions": f"av {av.__version__}, torch {torch.__version__}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "videos": len(chosen),
        "workers": arguments.workers,
    }
    print_table(header, rows)
    if arguments.json:
        document = {**header, "rows": [asdict(row) for row in rows]}
        arguments.json.write_text(json.dumps(document, indent=1))


def measure(folder: Path, paths: Sequence[Path], *, steps: int, workers: int) -> list[Row]:
    """Time all ways in one run."""
    times: list[tuple[str, int, float, float]] = []

    def timed(name: str, action: Callable[[], int]) -> None:
        wall_s, cpu_s = time.monotonic(), all_cpu_s()
        num_clips = action()
        times.append((name, num_clips, all_cpu_s() - cpu_s, time.monotonic() - wall_s))

    timed("plain PyAV loop", lambda: sum(1 for _ in plain_clips(paths)))
    for crops in (1, 4):
        name = f"streamed, {crops} crop{'s' * (crops > 1)} per window"
        with closing(
            opened(folder, memory="never", workers=workers, crops_per_window=crops)
        ) as clips:
            assert isinstance(clips, StreamClips)
            # More crops make longer blocks.
            warm_up = WARM_UP_STEPS * crops
            drain(clips.batch, range(warm_up))
            measured = range(warm_up, warm_up + steps * crops)
            timed(name, functools.partial(drain, clips.batch, measured))
    with closing(opened(folder, memory="always", workers=workers)) as clips:
        drain(clips.batch, range(1))
        timed("from memory", functools.partial(drain, clips.batch, range(steps)))
    with closing(opened(folder, memory="always", workers=workers, zoom_share=1.0)) as clips:
        drain(clips.batch, range(1))
        timed("from memory, zoomed", functools.partial(drain, clips.batch, range(steps)))
    plain_s = times[0][2] / times[0][1]
    return [
        Row(
            name=name,
            num_clips=num_clips,
            cpu_ms_per_clip=cpu_s / num_clips * 1000,
            ratio=cpu_s / num_clips / plain_s,
            batches_per_s=num_clips / BATCH / wall_s,
        )
        for name, num_clips, cpu_s, wall_s in times
    ]


def opened(folder: Path, **changes: Any) -> Any:  # noqa: ANN401  either kind of clips
    """The corpus, with the configuration that is measured."""
    config = ClipsConfig(frames=FRAMES, crop=CROP, batch_size=BATCH, size=SIZE, **changes)
    source = open_source(str(folder), SourceConfig(), StorageConfig())
    return open_clips(source, config, RunConfig(), device="cpu")


def drain(batch: Callable[[int], torch.Tensor], steps: range) -> int:
    """Ask for batches and throw them away; returns how many clips they had."""
    return sum(len(batch(step)) for step in steps)


def plain_clips(paths: Sequence[Path]) -> Iterator[np.ndarray[Any, Any]]:
    """One random crop of each 17 frames, the way one would write it first."""
    random = np.random.default_rng(0)
    for path in paths:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            frames: list[np.ndarray[Any, Any]] = []
            for frame in container.decode(stream):
                frames.append(frame.to_ndarray(format="rgb24"))
                if len(frames) == FRAMES:
                    height, width = frames[0].shape[:2]
                    y = random.integers(max(height - CROP, 0) + 1)
                    x = random.integers(max(width - CROP, 0) + 1)
                    yield np.stack([image[y : y + CROP, x : x + CROP] for image in frames])
                    frames = []


def all_cpu_s() -> float:
    """CPU-seconds of this process, of its living children and of those that ended."""
    times = os.times()
    seconds = times.user + times.system + times.children_user + times.children_system
    for child in psutil.Process().children(recursive=True):
        used = child.cpu_times()
        seconds += used.user + used.system
    return seconds


def print_table(header: dict[str, Any], rows: list[Row]) -> None:
    """Markdown on stdout."""
    print(", ".join(f"{key} {value}" for key, value in header.items()))
    print("| clips | number | CPU ms per clip | ratio | batches/s |")
    print("|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.name} | {row.num_clips} | {row.cpu_ms_per_clip:.2f} | {row.ratio:.2f} "
            f"| {row.batches_per_s:.1f} |"
        )


if __name__ == "__main__":
    main()
