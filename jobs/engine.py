"""Starting Ray, and stopping when asked: what a run takes from its surroundings."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import threading
import time
from collections.abc import Generator

import click
import ray

from pipelines.observe import RunControl

__all__ = ["engine"]


@contextlib.contextmanager
def engine() -> Generator[RunControl]:
    """A connection to Ray (that of ``RAY_ADDRESS``, else a local one) and the control of a run."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's own progress bars, plans and notices drown ours.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if "RAY_ADDRESS" in os.environ:
        ray.init(logging_level=logging.ERROR)
    else:
        ray.init(include_dashboard=False, logging_level=logging.ERROR)
    control = RunControl(
        run_id=secrets.token_hex(6),
        clock=time.monotonic,
        say=lambda line: click.echo(line, err=True),
        stop=threading.Event(),
    )
    # After ray.init, which installs handlers of its own.
    previous = {
        number: signal.signal(number, lambda *_: control.stop.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield control
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        ray.shutdown()
