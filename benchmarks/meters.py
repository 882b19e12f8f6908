"""What a run of the pipeline uses: CPU by kind of process, GPUs, batches, and how far it is."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from torch import Tensor

from infotok_core.tokenizer import Analysis
from pipelines.analyser import VideoTokenizer
from pipelines.config import RunConfig
from pipelines.tokenizer_actor import load_tokenizer

_KINDS = {
    "decode_worker": "decoding process",
    "ray::MapBatches": "decode task",
    "ray::MapWorker": "tokenizer actor",
}
"""Parts of command lines. A worker of Ray is called after what it does; the rest is Ray's own."""
_DRIVER, _RAY = "driver", "Ray's own processes"


class CpuMeter:
    """CPU-seconds of this process and of everything below it, by kind; its own are left out.

    Looks at them again and again, because the seconds of a process that ends are lost: Ray does not
    wait for its workers.

    Args:
        look_s: Seconds between looks. One costs some 50 CPU-ms in this process with 100 others.
    """

    def __init__(self, look_s: float = 0.25) -> None:
        self._look_s = look_s
        self._kinds: dict[int, str] = {}
        self._before: dict[int, float] = {}
        self._seconds: dict[int, float] = {}
        self._own_s = 0.0
        self._looks: list[tuple[float, Counter[str]]] = []

    @contextmanager
    def watching(self) -> Generator[None]:
        """Look until the block ends; what processes used before it does not count."""
        self._look()
        self._before = self._seconds.copy()

        def look() -> None:
            self._look()
            self._own_s = time.thread_time()
            self._looks.append((time.monotonic(), self.totals()))

        try:
            with _often(look, self._look_s):
                yield
        finally:
            self._look()

    def totals(self) -> Counter[str]:
        """Seconds by kind, up to the last look."""
        totals: Counter[str] = Counter()
        for pid, seconds in self._seconds.items():
            totals[self._kinds[pid]] += seconds - self._before.get(pid, 0.0)
        totals[_DRIVER] -= self._own_s
        return totals

    def per_second(self, start_s: float, end_s: float) -> dict[str, float]:
        """CPU-seconds per second by kind, between the looks nearest to two times, most first.

        On busy cores a look takes seconds: where one alone lies between, its neighbours are taken.
        """
        times = [when for when, _ in self._looks]
        if len(times) < 2:
            raise SystemExit("CPUs were looked at less than twice: measure for longer")
        first, last = (min(bisect_left(times, when), len(times) - 1) for when in (start_s, end_s))
        if first == last:
            first, last = max(first - 1, 0), min(last + 1, len(times) - 1)
        (began, before), (ended, after) = self._looks[first], self._looks[last]
        used = {kind: (after[kind] - before[kind]) / (ended - began) for kind in after}
        return dict(sorted(used.items(), key=lambda item: -item[1]))

    def _look(self) -> None:
        me = psutil.Process()
        self._kinds[me.pid] = _DRIVER
        for process in [me, *me.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                if self._kinds.get(process.pid, _RAY) == _RAY:
                    line = " ".join(process.cmdline())
                    kinds = (kind for part, kind in _KINDS.items() if part in line)
                    self._kinds[process.pid] = next(kinds, _RAY)
                self._seconds[process.pid] = times.user + times.system


class BatchTimes:
    """Loads the tokenizer in an actor, and notes each batch that it is handed.

    Args:
        folder: A new one, for the times, in a file for each actor.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        Path(folder).mkdir(parents=True)

    def __call__(self, config: RunConfig, device: str) -> VideoTokenizer:
        """As `load_tokenizer`."""
        return _TimedTokenizer(load_tokenizer(config, device), Path(self._folder))

    def between(self, start_s: float, end_s: float) -> int:
        """Batches between two times of the monotonic clock."""
        times = [np.fromfile(file) for file in Path(self._folder).iterdir()]
        return sum(int(((start_s <= t) & (t <= end_s)).sum()) for t in times)


class _TimedTokenizer:
    def __init__(self, tokenizer: VideoTokenizer, folder: Path) -> None:
        self._tokenizer = tokenizer
        self.fingerprint, self.device = tokenizer.fingerprint, tokenizer.device
        self.config = tokenizer.config
        self._times = (folder / str(os.getpid())).open("ab", buffering=0)

    def analyse(self, video_u8_BTHWC: Tensor, /) -> Analysis:
        self._times.write(np.float64(time.monotonic()).tobytes())
        return self._tokenizer.analyse(video_u8_BTHWC)


@contextmanager
def looking(count: Callable[[], int]) -> Generator[list[tuple[float, int]]]:
    """(Time, count), several times a second, until the block ends."""
    looks: list[tuple[float, int]] = []
    with _often(lambda: looks.append((time.monotonic(), count())), 0.2):
        yield looks


@contextmanager
def gpu_use(gpus: int) -> Generator[list[tuple[float, float]]]:
    """(Time, share of it in which a kernel ran), as the driver says for each of the first GPUs."""
    seen: list[tuple[float, float]] = []
    if not gpus:
        yield seen
        return
    query = ["nvidia-smi", "--query-gpu=index,utilization.gpu", "--format=csv,noheader,nounits",
             "-lms", "500"]  # fmt: skip
    process = subprocess.Popen(query, stdout=subprocess.PIPE, text=True)

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            index, _, share = line.partition(",")
            # Some machines do not say: "[N/A]".
            if share.strip().isdigit() and int(index) < gpus:
                seen.append((time.monotonic(), float(share) / 100))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield seen
    finally:
        process.terminate()
        thread.join()


@contextmanager
def _often(look: Callable[[], None], every_s: float) -> Generator[None]:
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(every_s):
            look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
