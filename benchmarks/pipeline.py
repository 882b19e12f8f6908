"""What the pipeline costs beside a plain loop: the same videos, decoded to windows, no tokenizer.

    python benchmarks/pipeline.py INPUT [--copies 4 20] [--size 256]

The loop decodes in this process with the pipeline's own decoder and does nothing with the windows.
The pipeline runs pass one on a local Ray with a tokenizer that returns zeros, over few copies of
the videos and over many: what the two differ by is the cost of a window, the rest is the cost of
starting (a tokenizer actor imports torch). CPU-seconds of all processes, Ray's own included, so
other load on the machine matters little. Prints the cost per window of both, where the pipeline's
goes by kind of process, and the ratio.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import ray
import torch
from meters import CpuMeter
from torch import Tensor

from infotok_core.config import TokenizerConfig, mini
from infotok_core.tokenizer import Analysis
from pipelines.analyse import analyse
from pipelines.analyser import VideoTokenizer
from pipelines.config import RunConfig
from pipelines.damage import FFmpegLog
from pipelines.decode import DecodeError, DecodeRequest
from pipelines.decoding import VideoDecoding
from pipelines.observe import Progress, RunControl
from pipelines.plan import Plan, ensure_plan
from pipelines.sources import open_source, source_url
from pipelines.stages import StageSpec
from pipelines.storage import Store
from pipelines.work import WorkFolder


class NoTokenizer:
    """Codes and information of zeros, at no cost."""

    fingerprint = "0" * 64
    device = torch.device("cpu")
    config: TokenizerConfig = mini()

    def analyse(self, video_u8_BTHWC: Tensor, /) -> Analysis:
        """Zeros of the right shape."""
        batch, frames, height, width, _ = video_u8_BTHWC.shape
        grid = (batch, 1 + (frames - 1) // 4, height // 8, width // 8)
        return Analysis(
            codes_Bthw=torch.zeros(grid, dtype=torch.int32), information_Bthw=torch.zeros(grid)
        )


def load_nothing(config: RunConfig, device: str) -> NoTokenizer:
    """In place of the network."""
    del config, device
    torch.set_num_threads(1)
    return NoTokenizer()


def plain_loop(plan: Plan, config: RunConfig) -> tuple[int, float]:
    """Windows and CPU-seconds of decoding in this process."""
    started, windows = time.process_time(), 0
    for row in plan.rows():
        request = DecodeRequest(
            url=source_url(plan.head.source_root, row["uri"]), storage_options={}, size=row["size"],
            window=config.window, space=config.space, limits=config.limits,
        )  # fmt: skip
        with contextlib.suppress(DecodeError), FFmpegLog() as log:
            windows += sum(1 for _ in VideoDecoding(request, log=log).windows())
    return windows, time.process_time() - started


def pass_one(
    plan: Plan,
    config: RunConfig,
    work: Store,
    *,
    device: str = "cpu",
    load: Callable[[RunConfig, str], VideoTokenizer] | None = load_nothing,
) -> tuple[Progress, Callable[[], None]]:
    """What counts pass one, and what runs it.

    Args:
        device: Where the tokenizer runs.
        load: Makes it; None: the one that the configuration names.
    """
    control = RunControl(
        run_id="benchmark", clock=time.monotonic, say=print, stop=threading.Event()
    )
    spec = StageSpec(
        config=config, source_root=plan.head.source_root, run_id=control.run_id, device=device,
        work=WorkFolder(store=work, analysis_key="benchmark"), load=load,
    )  # fmt: skip
    progress = Progress(
        control=control, stage="analyse", total=plan.head.videos, total_bytes=plan.head.num_bytes,
        interval_s=30, watchdog_s=600,
    )  # fmt: skip
    return progress, lambda: analyse(plan, spec, progress)


def pipeline(plan: Plan, config: RunConfig, work: Store) -> int:
    """Pass one; returns its windows."""
    progress, run = pass_one(plan, config, work)
    run()
    return progress.counts["windows"]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Pass one over some copies of the videos."""

    windows: int
    seconds: Counter[str]
    wall_s: float


def measure(plan: Plan, config: RunConfig, work: Store) -> Measured:
    """Run pass one under the meter."""
    meter, began = CpuMeter(), time.monotonic()
    with meter.watching():
        windows = pipeline(plan, config, work)
    return Measured(windows=windows, seconds=meter.totals(), wall_s=time.monotonic() - began)


def _minus(these: Counter[str], those: Counter[str]) -> Counter[str]:
    # Counter's own subtraction drops what is not positive.
    return Counter({kind: these[kind] - those[kind] for kind in these | those})


def copy_videos(source: Path, count: int, folder: Path) -> None:
    """Some copies of each video in a new folder; they share the bytes on the disk."""
    folder.mkdir(parents=True)
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        first = folder / f"0-{file.name}"
        shutil.copyfile(file, first)
        for copy in range(1, count):
            (folder / f"{copy}-{file.name}").hardlink_to(first)


def planned(videos: Path, work: Path, config: RunConfig) -> tuple[Plan, Store]:
    """A plan of the videos in a work folder, and the folder."""
    store = Store(str(work))
    listed = open_source(str(videos), config.source, config.source_storage)
    return ensure_plan(listed, config, tokenizer="0" * 64, work=store), store


def copies_of(
    source: Path, count: int, folder: Path, config: RunConfig
) -> tuple[Plan, RunConfig, Store]:
    """Some copies of each video, planned."""
    copy_videos(source, count, folder / "videos")
    plan, work = planned(folder / "videos", folder / "work", config)
    return plan, config, work


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("input", type=Path, nargs="?", default=Path("examples/clips"))
    parser.add_argument("--copies", type=int, nargs=2, default=(4, 20), metavar=("FEW", "MANY"))
    parser.add_argument("--size", type=int, default=256)
    arguments = parser.parse_args()
    config = RunConfig.model_validate({"space": {"size": arguments.size}, "runtime": {"actors": 1}})
    with tempfile.TemporaryDirectory() as scratch:
        # The first run starts the decode tasks' workers, which the others find.
        counts = {
            "warm": arguments.copies[0],
            "few": arguments.copies[0],
            "many": arguments.copies[1],
        }
        warm, few, many = (
            copies_of(arguments.input, count, Path(scratch, name), config)
            for name, count in counts.items()
        )
        ray.init(include_dashboard=False, logging_level="ERROR")
        pipeline(*warm)
        small, large = measure(*few), measure(*many)
        ray.shutdown()
        windows, loop_s = plain_loop(many[0], config)
    assert windows == large.windows, (windows, large.windows)
    _print(small, large, loop_ms=1000 * loop_s / windows, size=arguments.size)


def _print(small: Measured, large: Measured, *, loop_ms: float, size: int) -> None:
    windows = large.windows - small.windows
    by_kind = _minus(large.seconds, small.seconds)
    window_ms = 1000 * by_kind.total() / windows
    start_s = small.seconds.total() - window_ms * small.windows / 1000
    today = time.strftime("%Y-%m-%d")
    print(f"{platform.machine()}, {psutil.cpu_count()} cores, ray {ray.__version__}, {today}")
    print(f"{small.windows} and {large.windows} windows of 33x{size}x{size}")
    print("| | CPU-ms per window |\n|---|---|")
    print(f"| plain loop: decode in one process | {loop_ms:.1f} |")
    print(f"| pipeline, no tokenizer | {window_ms:.1f} |")
    for kind, seconds in by_kind.most_common():
        print(f"| - {kind} | {1000 * seconds / windows:.1f} |")
    print(f"\nratio {window_ms / loop_ms:.2f}; {start_s:.1f} CPU-seconds to start actors", end="; ")
    print(f"{1000 * large.wall_s / large.windows:.0f} ms of wall time per window")


if __name__ == "__main__":
    main()
