"""How fast the stages of a run were, kept beside its work for the report."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator

from pipelines.errors import StorageError
from pipelines.observe import Progress
from pipelines.storage import Store
from schemas.timings import StageTiming
from schemas.versions import FormatError

__all__ = ["read_timings", "timed"]

_FOLDER = "timings"

log = logging.getLogger(__name__)


@contextlib.contextmanager
def timed(progress: Progress, work: Store) -> Generator[None]:
    """Store what the stage inside took, also if it is stopped; at its end say its last line.

    A driver that is killed outright leaves no timing, only its work.
    """
    try:
        yield
        progress.report()
    finally:
        timing = progress.timing()
        if timing.items or timing.counts:
            try:
                path = f"{_FOLDER}/{timing.run_id}-{timing.stage.replace(' ', '-')}.json"
                work.replace(path, timing.to_bytes())
            except (OSError, StorageError) as error:
                # A report without a number is no reason to end a run.
                log.warning("the timing of %s is not stored: %s", timing.stage, error)


def read_timings(work: Store) -> list[StageTiming]:
    """Every stored timing, in order of its stage; none if the work folder is gone."""
    found: list[StageTiming] = []
    for path, _ in work.list(_FOLDER):
        try:
            found.append(StageTiming.from_bytes(work.read(path)))
        except FormatError as error:
            log.warning("%s is left out: %s", work.full(path), error)
    return sorted(found, key=lambda timing: timing.stage)
