"""What a run of the pipeline uses: CPU by kind of process, GPUs, batches."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from pipelines import window_batches
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


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Part of a run, by the batches begun in it; seconds are of the monotonic clock."""

    start_s: float
    end_s: float
    windows: int
    places: int


class BatchNotes:
    """Loads the tokenizer in an actor, and notes each batch that is handed to it.

    There, and not where the driver counts: it hears of the windows of a call when all of them are
    done, so what is on its way differs by a hundred and more between two moments.

    Args:
        folder: A new one, for the notes, in a file for each actor.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        Path(folder).mkdir(parents=True)

    def __call__(self, config: RunConfig, device: str) -> VideoTokenizer:
        """As `load_tokenizer`."""
        window_batches.log.addHandler(_NoteTaker(Path(self._folder, str(os.getpid()))))
        window_batches.log.setLevel(logging.DEBUG)
        return load_tokenizer(config, device)

    def stretch(self, low: float, high: float) -> Stretch:
        """From when a share of all windows was in batches to when another was.

        Raises:
            SystemExit: If that are less than two batches.
        """
        files = [np.fromfile(file).reshape(-1, 3) for file in Path(self._folder).iterdir()]
        notes = np.concatenate(files)
        notes = notes[notes[:, 0].argsort()]
        so_far = notes[:, 1].cumsum()
        first, last = np.searchsorted(so_far, [low * so_far[-1], high * so_far[-1]])
        if last - first < 2:
            raise SystemExit(f"{len(notes)} batches are too few to measure: give it more videos")
        windows, places = notes[first:last, 1:].sum(axis=0).astype(int).tolist()
        return Stretch(
            start_s=notes[first, 0], end_s=notes[last, 0], windows=windows, places=places
        )


class _NoteTaker(logging.Handler):
    """Hears of each batch from the log of `window_batches`: so many windows in so many places."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file.open("ab", buffering=0)

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.DEBUG and isinstance(record.args, tuple):
            note = np.array([time.monotonic(), *record.args[:2]], dtype=np.float64)
            self._file.write(note.tobytes())


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
