"""Being asked to stop at moments when nobody listens: Ray that starts, work that takes long."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest
from runs import PATIENCE_S, start, until

from benchmarks.processes import Session

pytestmark = pytest.mark.ray

_DRIVER = """
import os, signal, sys, time
from jobs.engine import engine

{before}
print("starting", flush=True)
with engine({settings}):
    print("working", file=sys.stderr, flush=True)
    time.sleep(600)
"""


_NOT_BEGUN = "error: stopped while Ray was starting; nothing was done\n"


def driver(log: Path, settings: str = "", before: str = "") -> Session:
    """A run whose work looks up from it at the end alone."""
    script = _DRIVER.format(settings=settings, before=before)
    return start([sys.executable, "-c", script], log)


def test_work_that_does_not_hear_a_stop_is_left_after_a_while(tmp_path: Path):
    with driver(tmp_path / "run.log", "patience_s=1") as session:
        until(session, lambda: "working" in session.log.read_text())
        asked = time.monotonic()
        session.send(signal.SIGTERM)
        assert session.wait(PATIENCE_S) == 143
        assert time.monotonic() - asked < 20
        assert "the same command goes on from here" in session.log.read_text()
        session.wait_leftovers(30)


def test_a_second_interrupt_ends_a_run_at_once(tmp_path: Path):
    with driver(tmp_path / "run.log", "patience_s=None") as session:
        until(session, lambda: "working" in session.log.read_text())
        session.send(signal.SIGINT)
        time.sleep(0.5)
        assert session.running()
        session.send(signal.SIGINT)
        assert session.wait(20) == 130
        assert "the same command goes on from here" in session.log.read_text()


def test_a_ray_that_does_not_start_ends_the_run(tmp_path: Path):
    with driver(tmp_path / "run.log", "start_s=0.3") as session:
        assert session.wait(60) == 1
        assert "in _start_local" in session.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_heard_while_ray_starts(number: signal.Signals, tmp_path: Path):
    with driver(tmp_path / "run.log") as session:
        until(session, lambda: "starting" in session.output.read_text())
        time.sleep(0.5)
        session.send(number)
        assert session.wait(20) == 128 + number
        assert session.log.read_text() == _NOT_BEGUN
        session.wait_leftovers(60)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["before", "after_in_parent"])
def test_a_stop_is_heard_where_python_swallows_exceptions(
    number: signal.Signals, moment: str, tmp_path: Path
):
    # As Ray forks its first process: Python ignores what a callback of a fork raises.
    at_fork = f"os.register_at_fork({moment}=lambda: os.kill(os.getpid(), {int(number)}))"
    with driver(tmp_path / "run.log", before=at_fork) as session:
        assert session.wait(60) == 128 + number
        assert session.log.read_text() == _NOT_BEGUN
        session.wait_leftovers(10)
