"""SSIM of many decodes beside the network: in processes of their own, and never many in memory.

```
submit ──▶ chunks of frames ──▶ threads ──▶ comparing processes ──▶ one number per frame
           (waits if full)      that wait   `ssim_worker`           in order, whoever made it
```
The numbers are those of `pipelines.metrics.ssim`, bit by bit, with any number of workers.

Shapes: T frames, H rows, W columns, C = 3 colours.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from pipelines.child import Child, ChildLostError, ChildTimeoutError
from pipelines.errors import PipelineError
from pipelines.metrics import ssim_of_frames

__all__ = ["Similarity", "SsimPool"]

_Frames = NDArray[np.uint8]

_WORKER = "pipelines.evaluation.ssim_worker"
_FRAMES_AT_ONCE = 8
"""Per call of a worker: 0.2 s of 256 x 256."""
_WAITING_PER_WORKER = 3
"""Chunks in line for each worker: enough that none waits while the next decode is made."""
_STARTUP_S = 120.0
_STALL_S = 300.0
"""Seconds a comparison may take; of frames of 2160 x 3840 it takes half a minute."""
_LEAST_SIDE = 7
"""Of the windows that SSIM compares."""


class Similarity:
    """The SSIM of one decode, there or still to come."""

    def __init__(self, parts: Sequence[Future[list[float]]]) -> None:
        self._parts = parts

    def result(self) -> float | None:
        """Mean over frames; None if a side is shorter than 7 pixels. Waits for it.

        Raises:
            PipelineError: If it cannot be computed; the message names the clip.
        """
        if not self._parts:
            return None
        values = [value for part in self._parts for value in part.result()]
        return sum(values) / len(values)


class SsimPool:
    """Workers that compare videos.

    Args:
        workers: Processes, each started when there is work for it. 0: compared at once, by the
            caller.
        clock: Seconds that only grow.
    """

    def __init__(self, workers: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._children: list[Child] = []
        self._own = threading.local()
        self._lock = threading.Lock()
        self._failure: PipelineError | None = None
        self._threads = ThreadPoolExecutor(workers) if workers else None
        self._room = threading.BoundedSemaphore(max(_WAITING_PER_WORKER * workers, 1))

    def __enter__(self) -> SsimPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        for child in self._children:
            child.kill()

    @property
    def pids(self) -> list[int]:
        """Of the processes started so far."""
        return [child.pid for child in self._children]

    def submit(self, name: str, source_THWC: _Frames, other_THWC: _Frames) -> Similarity:
        """Compare a decode with its source, soon; waits while too much is in line already.

        Args:
            name: Of the clip, for errors.
            source_THWC: Neither it nor the other may be changed before the result is there.
            other_THWC: Of the same shape.

        Raises:
            PipelineError: If a comparison, this one or an earlier one, failed.
        """
        if self._failure is not None:
            raise self._failure
        frames = len(source_THWC)
        if min(source_THWC.shape[1:3]) < _LEAST_SIDE:
            return Similarity([])
        # Equal parts, so that workers that share a decode end together.
        parts = -(-frames // _FRAMES_AT_ONCE)
        step = -(-frames // parts)
        return Similarity(
            [
                self._part(name, source_THWC, other_THWC, range(start, min(start + step, frames)))
                for start in range(0, frames, step)
            ]
        )

    def _part(
        self, name: str, source_THWC: _Frames, other_THWC: _Frames, frames: range
    ) -> Future[list[float]]:
        pair = (source_THWC[frames.start : frames.stop], other_THWC[frames.start : frames.stop])
        if self._threads is None:
            done: Future[list[float]] = Future()
            done.set_result(ssim_of_frames(*pair))
            return done
        self._room.acquire()
        future = self._threads.submit(self._compare, name, *pair)
        future.add_done_callback(lambda _: self._room.release())
        return future

    def _compare(self, name: str, source_THWC: _Frames, other_THWC: _Frames) -> list[float]:
        try:
            return self._ask(source_THWC, other_THWC)
        except (ChildLostError, ChildTimeoutError, OSError, RuntimeError) as error:
            failure = PipelineError(f"{name}: SSIM cannot be computed: {error}")
            self._failure = self._failure or failure
            raise failure from error

    def _ask(self, source_THWC: _Frames, other_THWC: _Frames) -> list[float]:
        child = self._child()
        frames, *rest = source_THWC.shape
        shape = (_FRAMES_AT_ONCE, *rest)
        child.memory.resize(shape, 2)
        child.memory.attach(shape, 2)
        for slot, video_THWC in zip(child.memory.slots, (source_THWC, other_THWC), strict=True):
            np.copyto(slot[:frames], video_THWC)
        child.send({"kind": "pair", "shape": shape, "frames": frames})
        answer = child.receive(_STALL_S)
        if answer["kind"] == "fail":
            raise RuntimeError(answer["detail"])
        return answer["values"]

    def _child(self) -> Child:
        """The process of this thread."""
        child: Child | None = getattr(self._own, "child", None)
        if child is None:
            child = self._own.child = Child(_WORKER, self._clock, startup_s=_STARTUP_S)
            with self._lock:
                self._children.append(child)
        return child
