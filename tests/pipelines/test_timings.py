"""How fast a stage was is kept beside the work, whatever ended it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import StalledError
from pipelines.observe import Progress, RunControl
from pipelines.storage import Store
from pipelines.timings import read_timings, timed


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def started(clock: Clock, stage: str, *, run_id: str = "r") -> Progress:
    control = RunControl(run_id=run_id, clock=clock, say=lambda _: None)
    progress = Progress(
        control=control, stage=stage, total=9, total_bytes=900, interval_s=1, watchdog_s=9
    )
    progress.done, progress.done_bytes = 3, 300
    progress.start()
    return progress


def test_a_timing_counts_what_this_start_did(tmp_path: Path):
    clock, work = Clock(), Store(str(tmp_path))
    progress = started(clock, "analyse sample")
    with timed(progress, work):
        clock.now_s += 8
        progress.advance(windows=2, tokens=640)
        progress.item_done(100)
    (timing,) = read_timings(work)
    assert (timing.stage, timing.seconds, timing.items) == ("analyse sample", 8, 1)
    assert (timing.source_bytes, timing.counts) == (100, {"windows": 2, "tokens": 640})


def test_a_stage_that_was_stopped_has_a_timing_too(tmp_path: Path):
    clock, work = Clock(), Store(str(tmp_path))
    progress = started(clock, "analyse")

    def stall() -> None:
        progress.item_done(100)
        clock.now_s += 10
        progress.tick()

    with pytest.raises(StalledError), timed(progress, work):
        stall()
    assert [timing.seconds for timing in read_timings(work)] == [10]


def test_a_stage_that_had_nothing_to_do_leaves_none(tmp_path: Path):
    work = Store(str(tmp_path))
    with timed(started(Clock(), "tokenise"), work):
        pass
    assert read_timings(work) == []


def test_a_damaged_timing_costs_no_more_than_itself(tmp_path: Path):
    clock, work = Clock(), Store(str(tmp_path))
    for run_id in ("a", "b"):
        progress = started(clock, "analyse", run_id=run_id)
        with timed(progress, work):
            progress.item_done(1)
    work.replace("timings/a-analyse.json", b"{")
    assert [timing.run_id for timing in read_timings(work)] == ["b"]
