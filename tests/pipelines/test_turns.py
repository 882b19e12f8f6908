"""Together or alone, among real threads."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Lock

from pipelines.turns import Turns


def test_threads_are_in_together():
    turns, barrier = Turns(), Barrier(3, timeout=30)

    def meet() -> None:
        with turns.together():
            barrier.wait()

    with ThreadPoolExecutor(3) as threads:
        for met in [threads.submit(meet) for _ in range(3)]:
            met.result()


def test_who_is_alone_is_alone():
    turns, lock = Turns(), Lock()
    inside: list[str] = []

    def enter(number: int) -> None:
        how = "alone" if number % 3 == 0 else "together"
        with turns.alone() if how == "alone" else turns.together():
            with lock:
                inside.append(how)
                seen = list(inside)
            assert seen == ["alone"] or "alone" not in seen
            time.sleep(0.001)
            with lock:
                inside.remove(how)

    with ThreadPoolExecutor(8) as threads:
        assert len(list(threads.map(enter, range(200)))) == 200
    assert not inside
