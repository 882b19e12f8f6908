"""Whether pass one keeps GPUs busy, and what it takes: the pipeline beside the bare network.

    python benchmarks/pipeline_gpu.py --input 256p=DIR [--input 1080p=DIR]... [--gpus 1 2]
        [--checkpoint default|published|PATH] [--seconds 40 | --copies N] [--set NAME=VALUE]...
        [--runtime NAME=VALUE,...]... [--json FILE] [--device cpu]

A row for each number of GPUs, each `--runtime` (settings of that table of the configuration) and
each folder of videos. The videos are decoded once in this process (what decoding costs, and how
many copies run for so many seconds), the copies go through pass one (decode, encode, store) on a
local Ray, and everything is measured from when a fifth of the windows has been handed to tokenizers
to when four fifths have: after everything has started, before anything has run out. The bare rate
is that of the same tokenizer on a batch that lies on the GPU already; it also compiles what the
actors find compiled. `--checkpoint published` is the published network with random weights. Later
runs over a folder are compared with the first, unit object by unit object.

The bottleneck is named by the first of these that holds: `network` (0.95 of the bare rate is
reached); `cores` (0.9 of them are busy, or 0.85 where the bare rate takes more than there are; with
what uses most); `decoders` (0.9 of what the decode tasks at a time could use); `padding` (a kernel
runs 0.9 of the time, but batches are not full); `GPU` (a kernel runs 0.9 of the time); `hand-over`
(all of them wait for one another).
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
import torch
from meters import BatchNotes, CpuMeter, gpu_use
from pipeline import copy_videos, pass_one, plain_loop, planned

from infotok_core.checkpoint import save_directory
from infotok_core.config import published
from infotok_core.network import build_network
from jobs.config import load_config
from pipelines.config import RunConfig
from pipelines.tokenizer_actor import load_tokenizer
from schemas.units import decode_unit

_STRETCH = (0.2, 0.8)
_CPU_LOOK_S = 1.0
_STORE_BYTES_PER_GPU = 12 << 30
"""Of Ray: little more than `infotok doctor` asks for beside 16 cores a GPU, since what was decoded
before the GPUs were there must not be what is measured."""
_REACHED, _BUSY, _NEARLY_BUSY = 0.95, 0.9, 0.85


def main() -> None:
    """Measure, print and write down a row for each number of GPUs and folder."""
    arguments = _arguments()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        config = _config(arguments, scratch)
        bare = bare_rate(config, arguments.device)
        fewest = min(arguments.gpus)
        sources = [
            prepare(label, Path(folder), scratch / label, config, bare=bare * fewest,
                    seconds=arguments.seconds, copies=arguments.copies)
            for label, folder in (given.split("=", 1) for given in arguments.input)
        ]  # fmt: skip
        runs = itertools.product(arguments.gpus, arguments.runtime or [""])
        for run, (gpus, runtime) in enumerate(runs):
            _start_ray(gpus, arguments.device)
            settings = [f"runtime.{setting}" for setting in runtime.split(",") if setting]
            varied = load_config(None, settings, base=config.model_dump())
            for source in sources:
                row = measure(source, run, gpus, varied, arguments.device, bare)
                row["checkpoint"] = arguments.checkpoint
                first = next((old for old in rows if old["input"] == source.name), None)
                if first is not None:
                    row["times_the_first"] = round(row["clips_per_s"] / first["clips_per_s"], 3)
                    row |= compare(source.work(0), source.work(run))
                print(json.dumps(row), flush=True)
                rows.append(row)
                if arguments.json:
                    arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
            ray.shutdown()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--input", action="append", required=True, metavar="NAME=DIR")
    parser.add_argument("--gpus", type=int, nargs="+", default=[1])
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--copies", type=int)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--runtime", action="append", metavar="NAME=VALUE,...")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        arguments.gpus = [0] * len(arguments.gpus)
    return arguments


def _config(arguments: argparse.Namespace, scratch: Path) -> RunConfig:
    checkpoint = arguments.checkpoint
    if checkpoint == "published":
        checkpoint = str(scratch / "published")
        network = build_network(published(), seed=0)
        save_directory(network, Path(checkpoint), card="", dtype="float32")
    # One wave: each starts its actors anew.
    settings = ["runtime.wave_videos=1000000", *arguments.set]
    return load_config(None, settings, {"tokenizer.checkpoint": checkpoint})


def _start_ray(gpus: int, device: str) -> None:
    ray.init(
        num_gpus=gpus, include_dashboard=False, logging_level="ERROR",
        object_store_memory=gpus * _STORE_BYTES_PER_GPU if device == "cuda" else None,
    )  # fmt: skip


def bare_rate(config: RunConfig, device: str) -> float:
    """Windows per second of the tokenizer alone, on a batch that is there."""
    if device == "cpu":
        torch.set_num_threads(config.tokenizer.cpu_threads)
    tokenizer = load_tokenizer(config, device)
    size, frames = config.space.size, config.window.frames
    gpu = device == "cuda"
    shape = (config.tokenizer.batch_size if gpu else 1, frames, size, size, 3)
    batch = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    seconds = 0.0
    for repeats in (2, 20) if gpu else (1, 2):
        start = time.perf_counter()
        for _ in range(repeats):
            tokenizer.analyse(batch)
        if gpu:
            torch.cuda.synchronize()
        seconds = (time.perf_counter() - start) / repeats
    del tokenizer
    if gpu:
        torch.cuda.empty_cache()
    return len(batch) / seconds


@dataclass(frozen=True, kw_only=True)
class Source:
    """Copies of the videos of a folder, and what decoding them costs in one process."""

    name: str
    folder: Path
    copies: int
    decode_ms: float

    @property
    def videos(self) -> Path:
        """The copies."""
        return self.folder / "videos"

    def work(self, run: int) -> Path:
        """The work folder of a run, from 0."""
        return self.folder / f"work-{run}"


def prepare(
    name: str, given: Path, folder: Path, config: RunConfig, *, bare: float, seconds: float,
    copies: int | None,
) -> Source:  # fmt: skip
    """Decode once, then copy so often that it lasts.

    Args:
        bare: Windows per second that the network would take.
        seconds: How long a run should be.
        copies: Instead.
    """
    copy_videos(given, 1, folder / "once")
    plan, _ = planned(folder / "once", folder / "plan", config)
    windows, decode_s = plain_loop(plan, config)
    if copies is None:
        # The pipeline costs half of decoding on top of it.
        decoders = config.runtime.decoders or os.cpu_count() or 1
        rate = min(bare, decoders * windows / (1.5 * decode_s))
        copies = math.ceil(seconds * rate / windows)
    copy_videos(given, copies, folder / "videos")
    return Source(name=name, folder=folder, copies=copies, decode_ms=1000 * decode_s / windows)


def measure(
    source: Source, run: int, gpus: int, config: RunConfig, device: str, bare: float
) -> dict[str, Any]:
    """Pass one over the copies on so many GPUs, on the Ray that runs."""
    plan, work = planned(source.videos, source.work(run), config)
    batches = BatchNotes(str(source.folder / f"batches-{run}"))
    meter, began = CpuMeter(_CPU_LOOK_S), time.monotonic()
    progress, pass_ = pass_one(plan, config, work, device=device, load=batches)
    with meter.watching(), gpu_use(gpus) as kernels:
        pass_()
    wall_s, inner = time.monotonic() - began, batches.stretch(*_STRETCH)
    stretch_s = inner.end_s - inner.start_s
    used = [share for when, share in kernels if inner.start_s <= when <= inner.end_s]
    rate = inner.windows / stretch_s
    row = {
        "input": source.name, "gpus": gpus, "date": time.strftime("%Y-%m-%d"),
        "gpu": torch.cuda.get_device_name() if gpus else None,
        "videos": plan.head.videos, "set_aside": progress.quarantined,
        "windows": progress.counts["windows"], "wall_s": round(wall_s, 1),
        "stretch_s": round(stretch_s, 1), "clips_per_s": round(rate, 1),
        "frames_per_s": round(rate * config.window.frames),
        "video_hours_per_day_per_gpu_at_30_fps": round(
            rate * config.window.frames / 30 * 24 / max(gpus, 1)
        ),
        "bare_clips_per_s": round(bare, 1), "share_of_bare": round(rate / bare / max(gpus, 1), 3),
        "gpu_busy": round(sum(used) / len(used), 3) if used else None,
        "batches_filled": round(inner.windows / inner.places, 3),
        **_cpu(meter.per_second(inner.start_s, inner.end_s), rate, bare, config),
        "plain_decode_cpu_ms": round(source.decode_ms, 1),
        "dtype": config.tokenizer.dtype_on(device),
        "batch_size": config.tokenizer.batch_size if gpus else 1,
        "fixed_places": config.tokenizer.fixed_places,
        "settings": config.runtime.model_dump(
            include={"actors_per_gpu", "calls_per_actor", "units_per_call"}
        ),
        "object_store_gb": round(ray.cluster_resources()["object_store_memory"] / 1e9, 1),
    }  # fmt: skip
    return row | {"bottleneck": bottleneck(row)}


def _cpu(used: dict[str, float], rate: float, bare: float, config: RunConfig) -> dict[str, Any]:
    """What the CPUs did: ``used`` of them by kind, at so many windows per second."""
    cores = psutil.cpu_count() or 1
    decoders = config.runtime.decoders or cores
    decoding = used.get("decoding process", 0.0) + used.get("decode task", 0.0)
    total = sum(used.values())
    return {
        "cores": cores, "cores_busy": round(total / cores, 3),
        "decoders": decoders, "decoders_busy": round(decoding / decoders, 3),
        "cpu_ms_per_window": round(1000 * total / rate, 1),
        "cpu_ms_by_kind": {kind: round(1000 * part / rate, 1) for kind, part in used.items()},
        "cores_per_gpu_at_bare_rate": round(total / rate * bare, 1),
    }  # fmt: skip


def bottleneck(row: dict[str, Any]) -> str:
    """What holds the pipeline back, by the rule at the top of this file."""
    busy = row["gpu_busy"] or 0.0
    most = next(iter(row["cpu_ms_by_kind"]))
    too_few = row["cores_per_gpu_at_bare_rate"] * max(row["gpus"], 1) > row["cores"]
    cases = (
        ("network", row["share_of_bare"] >= _REACHED),
        (f"cores: {most}", row["cores_busy"] >= (_NEARLY_BUSY if too_few else _BUSY)),
        ("decoders", row["decoders_busy"] >= _BUSY),
        ("padding", busy >= _BUSY > row["batches_filled"]),
        ("GPU", busy >= _BUSY),
    )
    return next((name for name, holds in cases if holds), "hand-over")


def compare(first: Path, second: Path) -> dict[str, Any]:
    """Unit objects of two runs, byte for byte; those that differ, token for token."""
    names = [_unit_objects(work) for work in (first, second)]
    equal = different = 0
    for name in names[0] & names[1]:
        one, other = ((work / name).read_bytes() for work in (first, second))
        equal += one == other
        if one != other:
            pairs = zip(decode_unit(one), decode_unit(other), strict=True)
            different += sum(int((a.codes != b.codes).sum()) for a, b in pairs)
    return {
        "units": len(names[0] | names[1]), "units_equal_to_first": equal,
        "tokens_different": different,
    }  # fmt: skip


def _unit_objects(work: Path) -> set[Path]:
    return {path.relative_to(work) for path in (work / "units").rglob("*.parquet")}


if __name__ == "__main__":
    main()
