"""What a run says while it works: plain lines with counts, speed and ETA; no TTY needed."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from pipelines.errors import InterruptedRunError, StalledError
from schemas.timings import StageTiming

__all__ = ["Progress", "RunControl", "format_duration", "format_quantity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunControl:
    """What the outside gives a run: its name, a clock, a voice, and a way to be stopped.

    Attributes:
        run_id: Names this start of the driver; another start has another.
        clock: Monotonic seconds.
        say: Takes one line of progress.
        watch: Is shown every stage as often as a line is said of it.
        stop: Set by SIGTERM or Ctrl-C.
    """

    run_id: str
    clock: Callable[[], float]
    say: Callable[[str], None]
    watch: Callable[[Progress], None] = lambda _: None
    stop: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raise if the run was asked to stop.

        Raises:
            InterruptedRunError: With what to do next.
        """
        if self.stop.is_set():
            raise InterruptedRunError(
                "stopped as asked; what is stored stays, the same command goes on from here"
            )


@dataclass(slots=True, kw_only=True)
class Progress:
    """Counts of one pass, its progress lines and its watchdog.

    Attributes:
        stage: First word of each line.
        total: Items (videos or shards) in all.
        total_bytes: Source bytes in all; the ETA goes by bytes, videos differ too much.
        interval_s: Seconds between two lines.
        watchdog_s: Seconds without progress before `tick` raises.
    """

    control: RunControl
    stage: str
    total: int
    total_bytes: int
    interval_s: float
    watchdog_s: float
    items: str = "videos"
    done: int = 0
    done_bytes: int = 0
    quarantined: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    _started: float = 0.0
    _first_bytes: int = 0
    _first_done: int = 0
    _last_line: float = 0.0
    _last_progress: float = 0.0

    def start(self) -> None:
        """Begin measuring; what was done before this call does not count as speed."""
        self._started = self._last_line = self._last_progress = self.control.clock()
        self._first_bytes, self._first_done = self.done_bytes, self.done

    def advance(self, **counts: int) -> None:
        """Something was finished; adds to the named counts."""
        self.counts.update(counts)
        self._last_progress = self.control.clock()

    def item_done(self, num_bytes: int, *, quarantined: bool = False) -> None:
        """A video or shard is finished."""
        self.done += 1
        self.done_bytes += num_bytes
        self.quarantined += quarantined
        self._last_progress = self.control.clock()

    def tick(self) -> None:
        """Say a line if it is time.

        Raises:
            StalledError: If nothing has advanced for ``watchdog_s``.
            InterruptedRunError: If the run was asked to stop.
        """
        self.control.check()
        now = self.control.clock()
        if now - self._last_progress > self.watchdog_s:
            raise StalledError(
                f"no progress for {format_duration(now - self._last_progress)}; "
                f"last stand: {self.line()}"
            )
        if now - self._last_line >= self.interval_s:
            self._last_line = now
            self.report()

    def report(self) -> None:
        """Say a line, and show those who watch."""
        self.control.say(self.line())
        self.control.watch(self)

    def timing(self) -> StageTiming:
        """What was done since `start`, and how long it took."""
        return StageTiming(
            stage=self.stage,
            run_id=self.control.run_id,
            seconds=max(self.control.clock() - self._started, 0.0),
            items=self.done - self._first_done,
            source_bytes=self.done_bytes - self._first_bytes,
            counts=dict(self.counts),
        )

    def line(self) -> str:
        """Where the pass stands."""
        elapsed = max(self.control.clock() - self._started, 1e-9)
        parts = [f"{self.stage} {self.done}/{self.total} {self.items}"]
        if self.quarantined:
            parts.append(f"{self.quarantined} quarantined")
        for name, count in self.counts.items():
            speed = format_quantity(count / elapsed)
            parts.append(f"{format_quantity(count)} {name} ({speed}/s)")
        parts.append(f"elapsed {format_duration(elapsed)}")
        moved = self.done_bytes - self._first_bytes
        if moved > 0 and self.done < self.total:
            left = (self.total_bytes - self.done_bytes) * elapsed / moved
            parts.append(f"ETA {format_duration(left)}")
        return ", ".join(parts)


def format_duration(seconds: float) -> str:
    """``7s``, ``3m05s``, ``2h14m``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def format_quantity(number: float) -> str:
    """Three digits and a metric suffix: ``640``, ``1.25k``, ``36.2M``."""
    for suffix in ("", "k", "M", "G", "T"):
        if number < 999.5 or suffix == "T":
            text = f"{number:.3g}" if number < 1000 else f"{number:.0f}"
            return text + suffix
        number /= 1000
    raise AssertionError("unreachable")
