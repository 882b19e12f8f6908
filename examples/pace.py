"""How fast a training goes, and how long it waits for its data."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

__all__ = ["Pace"]

Item = TypeVar("Item")


class Pace:
    """Counts steps against a clock; the first ones, which compile and warm up, are left out.

    On a CPU the clock is that of the process, which others on the machine do not disturb; on a GPU
    it is the one on the wall, read when all that was asked for is done.

    Args:
        device: Where the training runs.
        left_out: Steps that do not count.
    """

    def __init__(self, device: str, *, left_out: int) -> None:
        self._on_cpu = torch.device(device).type == "cpu"
        self._left_out = left_out
        self._steps, self._began_s, self._waited_s = 0, self._now_s(), 0.0

    def each(self, batches: Iterator[Item]) -> Iterator[Item]:
        """The batches, and a count of the time that they are waited for."""
        while True:
            if self._steps == self._left_out:
                self._began_s, self._waited_s = self._now_s(), 0.0
            asked_s = self._clock()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._waited_s += self._clock() - asked_s
            self._steps += 1
            yield batch

    def so_far(self) -> tuple[float, float]:
        """(steps per second, share of the time that was waited for batches) of what counts."""
        took_s = max(self._now_s() - self._began_s, 1e-9)
        return max(self._steps - self._left_out, 0) / took_s, self._waited_s / took_s

    @property
    def _clock(self) -> Callable[[], float]:
        return time.process_time if self._on_cpu else time.perf_counter

    def _now_s(self) -> float:
        if not self._on_cpu:
            torch.cuda.synchronize()
        return self._clock()
