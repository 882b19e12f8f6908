"""Together or alone, among real threads."""

from __future__ import annotations

import ctypes
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Lock, Thread, get_ident

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


def test_who_is_interrupted_while_it_waits_to_be_alone_keeps_nobody_out():
    turns, idents, entered = Turns(), list[int](), list[bool]()

    def give_up() -> None:
        idents.append(get_ident())
        try:
            with turns.alone():
                pass
        except TimeoutError:
            idents.clear()

    def enter() -> None:
        with turns.together():
            entered.append(True)

    waiting, other = Thread(target=give_up, daemon=True), Thread(target=enter, daemon=True)
    with turns.together():
        waiting.start()
        time.sleep(0.1)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(idents[0]), ctypes.py_object(TimeoutError)
        )
        # It hears of it when it is woken.
    waiting.join(5)
    other.start()
    other.join(5)
    assert idents == []
    assert entered
