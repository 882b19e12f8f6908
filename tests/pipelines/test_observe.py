"""Progress lines, the watchdog and the stop flag, with a clock that the test turns."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.errors import InterruptedRunError, StalledError
from pipelines.observe import Progress, RunControl, format_duration, format_quantity


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def progress(clock: Clock, lines: list[str]) -> Progress:
    return started(clock, lines)


def started(clock: Clock, lines: list[str], **fields: Any) -> Progress:
    defaults: dict[str, Any] = {
        "control": RunControl(run_id="r", clock=clock, say=lines.append),
        "total": 10,
        "total_bytes": 1000,
        "watchdog_s": 60,
    }
    progress = Progress(stage="analyse", interval_s=10, **{**defaults, **fields})
    progress.start()
    return progress


def test_a_line_is_said_once_per_interval(progress: Progress, clock: Clock, lines: list[str]):
    for _ in range(25):
        clock.now_s += 1
        progress.tick()
    assert len(lines) == 2


def test_who_watches_is_shown_the_stage_with_every_line(clock: Clock, lines: list[str]):
    shown: list[int] = []
    control = RunControl(
        run_id="r",
        clock=clock,
        say=lines.append,
        watch=lambda progress: shown.append(progress.done),
    )
    progress = started(clock, lines, control=control)
    for _ in range(4):
        progress.item_done(1)
        clock.now_s += 5
        progress.tick()
    assert shown == [2, 4]
    assert len(lines) == 2


def test_a_line_tells_counts_speed_and_time_left(progress: Progress, clock: Clock):
    clock.now_s += 20
    progress.advance(windows=40, tokens=9_000)
    progress.item_done(100)
    progress.item_done(100, quarantined=True)
    assert progress.line() == (
        "analyse 2/10 videos, 1 quarantined, 40 windows (2/s), 9k tokens (450/s), "
        "elapsed 20s, ETA 1m20s"
    )


def test_what_an_earlier_run_did_is_counted_but_is_no_speed(clock: Clock, lines: list[str]):
    progress = started(clock, lines, done=5, done_bytes=500)
    clock.now_s += 10
    assert "ETA" not in progress.line()
    progress.item_done(100)
    assert progress.line() == "analyse 6/10 videos, elapsed 10s, ETA 40s"


def test_a_finished_pass_has_no_time_left(progress: Progress, clock: Clock):
    clock.now_s += 10
    for _ in range(10):
        progress.item_done(100)
    assert progress.line() == "analyse 10/10 videos, elapsed 10s"


def test_a_line_before_any_time_has_passed_divides_by_nothing(progress: Progress):
    progress.advance(windows=1)
    assert progress.line().startswith("analyse 0/10 videos, 1 windows (")


def test_the_watchdog_ends_a_run_without_progress_and_says_where_it_stood(
    progress: Progress, clock: Clock
):
    progress.item_done(100)
    clock.now_s += 60
    progress.tick()
    clock.now_s += 1
    with pytest.raises(StalledError, match="no progress for 1m01s; last stand: analyse 1/10"):
        progress.tick()


@pytest.mark.parametrize("what", ["advance", "item_done"])
def test_any_progress_calms_the_watchdog(progress: Progress, clock: Clock, what: str):
    for _ in range(5):
        clock.now_s += 50
        if what == "advance":
            progress.advance(windows=1)
        else:
            progress.item_done(1)
        progress.tick()


def test_a_stopped_run_is_interrupted_at_the_next_tick(progress: Progress):
    progress.tick()
    progress.control.stop.set()
    with pytest.raises(InterruptedRunError, match="the same command goes on from here"):
        progress.tick()
    assert InterruptedRunError.exit_code == 143
    assert StalledError.exit_code == 5


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.4, "59s"), (59.6, "1m00s"), (185, "3m05s"), (3600, "1h00m"), (8040, "2h14m")],
)
def test_durations_are_short(seconds: float, text: str):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (0.191, "0.191"),
        (640, "640"),
        (999.4, "999"),
        (999.6, "1k"),
        (1250, "1.25k"),
        (36_200_000, "36.2M"),
        (5e15, "5000T"),
    ],
)
def test_quantities_have_three_digits(number: float, text: str):
    assert format_quantity(number) == text
