"""Reading a Ray dataset without going deaf: progress, watchdog and stop flag stay alive."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import ray.data
from ray.data._internal.execution.streaming_executor import StreamingExecutor

from pipelines.observe import Progress

__all__ = ["StreamEndedError", "poll"]

_POLL_S = 0.5
_THREAD_NAME = "ray-data"
_END_S = 10.0
_JOIN_S = 0.05
_WRAPPED = "The above exception was the direct cause of the following exception"
_BY_RAY = "UserCodeException"
_ADVICE = ("Failed to apply UDF transform", "To change retry attempts")
"""So begin the lines that Ray Data writes behind an error of a task that gives rows as it goes."""

log = logging.getLogger(__name__)


class StreamEndedError(Exception):
    """Ray gave up before the stream was through; the message says why."""


def poll(dataset: ray.data.Dataset, progress: Progress) -> Iterator[pa.Table]:
    """Blocks of ``dataset`` as they come.

    A background thread waits for Ray; this one wakes up twice a second for `Progress.tick`.

    Raises:
        StreamEndedError: If Ray gives up (a dead actor or node it could not replace). What came
            before stands; the caller knows what is missing, and may run that again.
        StalledError: From the watchdog.
        InterruptedRunError: If the run was asked to stop.
    """
    progress.tick()
    results: queue.Queue[pa.Table | BaseException | None] = queue.Queue(maxsize=64)

    def consume() -> None:
        try:
            for batch in dataset.iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=0
            ):
                results.put(batch)
            results.put(None)
        except BaseException as error:  # noqa: BLE001  handed to the thread that can act on it
            results.put(error)

    before = set(threading.enumerate())
    threading.Thread(target=consume, name=_THREAD_NAME, daemon=True).start()
    try:
        while True:
            progress.tick()
            try:
                item = results.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise StreamEndedError(_last_line(item)) from item
            yield item
    finally:
        _end_threads(before, results)


def _end_threads(before: set[threading.Thread], results: queue.Queue[Any]) -> None:
    """Stop an execution that is left early; one that is through has no threads any more.

    There is no public way. A thread of Ray Data that is still busy when `ray.shutdown` is called
    ends the whole process with status 1, or connects to another Ray and aborts there.
    """
    for _ in range(round(_END_S / _JOIN_S)):
        threads = set(threading.enumerate()) - before
        # The reader may be waiting for room, or may only just have started the execution.
        while not results.empty():
            results.get()
        executors = [thread for thread in threads if isinstance(thread, StreamingExecutor)]
        for executor in executors:
            executor.shutdown(force=True)
        waiting = [thread for thread in threads if thread.name == _THREAD_NAME] + executors
        if not waiting:
            return
        waiting[0].join(_JOIN_S)
    log.warning("threads of Ray Data are still busy")


def _last_line(error: BaseException) -> str:
    # Ray puts the traceback of the worker into the message; its last line is the error itself, but
    # for what Ray Data says behind it.
    text = str(error)
    own, _, wrapped = text.rpartition(_WRAPPED)
    lines = [line.strip() for line in (own if _BY_RAY in wrapped else text).splitlines()]
    lines = [line for line in lines if line and not line.startswith(_ADVICE)]
    return lines[-1] if lines else repr(error)
