"""Whether pass one keeps GPUs busy: windows per second of the pipeline beside the bare network's.

    python benchmarks/pipeline_gpu.py INPUT [--copies 20] [--gpus 1 2] [--checkpoint default]
        [--set runtime.actors_per_gpu=2]... [--json FILE]

Copies every video of INPUT, runs pass one (decode, encode, store) with the real tokenizer on a
local Ray with so many GPUs, and counts between a fifth and nine tenths of its windows, when
everything has started and nothing has run out. The bare rate is that of the same tokenizer on a
batch that lies on the GPU already. `--checkpoint published` is the published network with random
weights.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import ray
import torch
from pipeline import CpuMeter, copies_of, pass_one

from infotok_core.checkpoint import save_directory
from infotok_core.config import published
from infotok_core.network import build_network
from jobs.config import load_config
from pipelines.config import RunConfig
from pipelines.tokenizer_actor import load_tokenizer


def main() -> None:
    """Measure and print a row for each number of GPUs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("input", type=Path)
    parser.add_argument("--copies", type=int, default=20)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1])
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = arguments.checkpoint
        if checkpoint == "published":
            checkpoint = f"{scratch}/published"
            network = build_network(published(), seed=0)
            save_directory(network, Path(checkpoint), card="", dtype="float32")
        config = load_config(None, arguments.set, {"tokenizer.checkpoint": checkpoint})
        bare = bare_rate(config)
        for gpus in arguments.gpus:
            folder = Path(scratch, str(gpus))
            row = measure(arguments.input, arguments.copies, gpus, config, folder)
            row["checkpoint"], row["bare_windows_per_s"] = arguments.checkpoint, round(bare, 1)
            row["share_of_bare"] = round(row["clips_per_s"] / (bare * gpus), 3)
            row["cores_per_gpu_at_bare_rate"] = round(row["cpu_ms_per_window"] * bare / 1000, 1)
            print(json.dumps(row), flush=True)
            rows.append(row)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


def bare_rate(config: RunConfig) -> float:
    """Windows per second of the tokenizer alone, on a batch that is there."""
    tokenizer = load_tokenizer(config, "cuda")
    size, frames = config.space.size, config.window.frames
    shape = (config.tokenizer.batch_size, frames, size, size, 3)
    batch = torch.randint(0, 256, shape, dtype=torch.uint8, device="cuda")
    seconds = 0.0
    for repeats in (2, 20):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(repeats):
            tokenizer.analyse(batch)
        torch.cuda.synchronize()
        seconds = (time.perf_counter() - start) / repeats
    del tokenizer
    torch.cuda.empty_cache()
    return len(batch) / seconds


def measure(
    source: Path, copies: int, gpus: int, config: RunConfig, folder: Path
) -> dict[str, Any]:
    """Pass one over the copies on so many GPUs."""
    plan, config, work = copies_of(source, copies, folder, config)
    ray.init(num_gpus=gpus, include_dashboard=False, logging_level="ERROR")
    meter, began = CpuMeter(), time.monotonic()
    progress, run = pass_one(plan, config, work, device="cuda", load=None)
    with meter.watching(), looking(progress.counts) as looks, gpu_use(gpus) as busy:
        run()
    wall_s = time.monotonic() - began
    ray.shutdown()
    windows = progress.counts["windows"]
    inner = [look for look in looks if 0.2 * windows <= look[1] <= 0.9 * windows]
    (from_s, first), (to_s, last) = inner[0], inner[-1]
    rate = (last - first) / (to_s - from_s)
    used = [share for when, share in busy if from_s <= when <= to_s]
    cpu = meter.totals()
    frames = config.window.frames
    return {
        "input": source.name, "gpus": gpus, "gpu": torch.cuda.get_device_name(),
        "cores": psutil.cpu_count(), "date": time.strftime("%Y-%m-%d"),
        "videos": plan.head.videos, "windows": windows, "wall_s": round(wall_s, 1),
        "clips_per_s": round(rate, 1), "frames_per_s": round(rate * frames),
        "video_hours_per_day_per_gpu_at_30_fps": round(rate * frames / 30 * 24 / gpus),
        "measured_s": round(to_s - from_s, 1),
        "gpu_busy": round(sum(used) / max(len(used), 1) / 100, 3),
        "cpu_ms_per_window": round(1000 * cpu.total() / windows, 1),
        "cpu_ms_by_kind": {k: round(1000 * s / windows, 1) for k, s in cpu.most_common()},
        "cores_busy": round(cpu.total() / wall_s / (psutil.cpu_count() or 1), 3),
        "settings": config.runtime.model_dump(include={"actors_per_gpu", "units_per_call"}),
        "dtype": config.tokenizer.dtype_on("cuda"), "batch_size": config.tokenizer.batch_size,
    }  # fmt: skip


@contextmanager
def looking(counts: Counter[str]) -> Generator[list[tuple[float, int]]]:
    """(Time, windows so far), several times a second, until the block ends."""
    looks: list[tuple[float, int]] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.2):
            looks.append((time.monotonic(), counts["windows"]))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield looks
    finally:
        stop.set()
        thread.join()


@contextmanager
def gpu_use(gpus: int) -> Generator[list[tuple[float, float]]]:
    """(Time, per cent of it in which a kernel ran), as the driver says for each GPU."""
    query = ["nvidia-smi", "--query-gpu=index,utilization.gpu", "--format=csv,noheader,nounits",
             "-lms", "500"]  # fmt: skip
    seen: list[tuple[float, float]] = []
    process = subprocess.Popen(query, stdout=subprocess.PIPE, text=True)

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            index, share = line.split(",")
            if int(index) < gpus:
                seen.append((time.monotonic(), float(share)))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield seen
    finally:
        process.terminate()
        thread.join()


if __name__ == "__main__":
    main()
