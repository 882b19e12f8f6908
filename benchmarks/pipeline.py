"""What the pipeline costs beside a plain loop: the same videos, decoded to windows, no tokenizer.

    python benchmarks/pipeline.py INPUT [--repeat 4] [--size 256]

The loop decodes in this process with the pipeline's own decoder and does nothing with the windows.
The pipeline runs pass one on a local Ray with a tokenizer that returns zeros. CPU-seconds of all
processes, start-up excluded (a first, small run pays for it), so other load on the machine matters
little. Prints the cost per window of both, and their ratio.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import shutil
import tempfile
import threading
import time
from pathlib import Path

import psutil
import ray
import torch
from torch import Tensor

from infotok_core.config import TokenizerConfig, mini
from infotok_core.tokenizer import Analysis
from pipelines.analyse import analyse
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


def tree_cpu_seconds() -> float:
    """CPU time of this process and of everything below it, so far."""
    total = 0.0
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


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


def pipeline(plan: Plan, config: RunConfig, work: Store) -> tuple[int, float]:
    """Windows and CPU-seconds of pass one."""
    control = RunControl(
        run_id="benchmark", clock=time.monotonic, say=print, stop=threading.Event()
    )
    spec = StageSpec(
        config=config, source_root=plan.head.source_root, run_id=control.run_id, device="cpu",
        work=WorkFolder(store=work, analysis_key="benchmark"), load=load_nothing,
    )  # fmt: skip
    progress = Progress(
        control=control, stage="analyse", total=plan.head.videos, total_bytes=plan.head.num_bytes,
        interval_s=30, watchdog_s=600,
    )  # fmt: skip
    before = tree_cpu_seconds()
    analyse(plan, spec, progress)
    return progress.counts["windows"], tree_cpu_seconds() - before


def today() -> str:
    """The date, for the record."""
    return time.strftime("%Y-%m-%d")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("input", type=Path, nargs="?", default=Path("examples/clips"))
    parser.add_argument("--repeat", type=int, default=8, help="copies of each video")
    parser.add_argument("--size", type=int, default=256)
    arguments = parser.parse_args()
    config = RunConfig.model_validate(
        {"space": {"size": arguments.size}, "runtime": {"actors": 1, "units_per_call": 4}}
    )
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        plans: list[tuple[Plan, Store]] = []
        for name, copies in (("warm", 1), ("real", arguments.repeat)):
            (root / name).mkdir()
            for file in sorted(path for path in arguments.input.rglob("*") if path.is_file()):
                for copy in range(copies):
                    shutil.copyfile(file, root / name / f"{copy}-{file.name}")
            work = Store(str(root / f"{name}-work"))
            source = open_source(str(root / name), config.source, config.source_storage)
            plans.append((ensure_plan(source, config, tokenizer="0" * 64, work=work), work))
        ray.init(include_dashboard=False, logging_level="ERROR")
        pipeline(plans[0][0], config, plans[0][1])
        windows, seconds = pipeline(plans[1][0], config, plans[1][1])
        ray.shutdown()
        loop_windows, loop_seconds = plain_loop(plans[1][0], config)
    assert windows == loop_windows, (windows, loop_windows)
    shape = f"33x{arguments.size}x{arguments.size}"
    print(f"{platform.machine()}, {psutil.cpu_count()} cores, ray {ray.__version__}, {today()}")
    print(f"{windows} windows of {shape}")
    print("| | CPU-ms per window |")
    print("|---|---|")
    print(f"| plain loop: decode in one process | {1000 * loop_seconds / windows:.1f} |")
    print(f"| pipeline, no tokenizer | {1000 * seconds / windows:.1f} |")
    print(f"\nratio {seconds / loop_seconds:.2f}")


if __name__ == "__main__":
    main()
