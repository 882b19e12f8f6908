"""Reading a Ray dataset without going deaf: progress, watchdog and stop flag stay alive."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator

import pyarrow as pa
import ray.data

from pipelines.observe import Progress

__all__ = ["poll"]

_POLL_S = 0.5

log = logging.getLogger(__name__)


def poll(dataset: ray.data.Dataset, progress: Progress) -> Iterator[pa.Table]:
    """Blocks of ``dataset`` as they come.

    A background thread waits for Ray; this one wakes up twice a second for `Progress.tick`. If Ray
    gives up (a dead actor or node it could not replace), the stream just ends: the caller knows
    from what is stored what is missing, and runs that again.

    Raises:
        StalledError: From the watchdog.
        InterruptedRunError: If the run was asked to stop.
    """
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

    threading.Thread(target=consume, name="ray-data", daemon=True).start()
    while True:
        progress.tick()
        try:
            item = results.get(timeout=_POLL_S)
        except queue.Empty:
            continue
        if item is None:
            return
        if isinstance(item, BaseException):
            log.warning("Ray ended early, what is missing is run again: %s", item)
            return
        yield item
