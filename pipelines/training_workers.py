"""Threads that wait for decoding processes, and keep nobody from leaving.

A ``ThreadPoolExecutor`` would finish everything that was submitted before the interpreter exits,
which is minutes of decoding for nobody when training ends with an error.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

__all__ = ["Workers"]

Result = TypeVar("Result")


class Workers:
    """A pool of daemon threads; jobs start in the order in which they are submitted."""

    def __init__(self, count: int, *, name: str) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]
        self._jobs = queue.SimpleQueue()
        self._is_stopped = False
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{index}", daemon=True)
            for index in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, action: Callable[[], Result]) -> Future[Result]:
        """Do it on one of the threads; cancelled at once if the pool was stopped."""
        future: Future[Result] = Future()
        self._jobs.put((future, action))
        if self._is_stopped:
            self._cancel_waiting()
        return future

    def stop(self) -> None:
        """Cancel what has not begun; does not wait. May be repeated."""
        if not self._is_stopped:
            self._is_stopped = True
            self._cancel_waiting()

    def join(self) -> None:
        """Wait for what has begun, after `stop`."""
        for thread in self._threads:
            thread.join()

    def _cancel_waiting(self) -> None:
        while not self._jobs.empty():
            job = self._jobs.get()
            if job is not None:
                job[0].cancel()
        for _ in self._threads:
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, action = job
            if future.set_running_or_notify_cancel():
                try:
                    result = action()
                except BaseException as error:  # noqa: BLE001  raised where it is waited for
                    future.set_exception(error)
                else:
                    future.set_result(result)
            # Or the last clips would live as long as the thread has nothing to do.
            job = future = action = result = None
