"""Starting Ray, and stopping when asked: what a run takes from its surroundings."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Generator

import click
import ray

from jobs.cluster import join_cluster, named_cluster
from pipelines.errors import InterruptedRunError, PipelineError, StalledError
from pipelines.observe import RunControl
from pipelines.stage_metrics import StageMetrics

__all__ = ["engine"]

_STARTS = 3


@contextlib.contextmanager
def engine() -> Generator[RunControl]:
    """A connection to Ray (that of ``RAY_ADDRESS``, else a local one) and the control of a run.

    Until the end everything printed goes to stderr: Ray prints what it and its workers have to say,
    and stdout is for results. `InterruptedRunError` and `StalledError` end the process from here,
    with their exit codes (for a stop: 128 + the signal).
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Threads of torch that wait for each other spin by default, on the cores that decoding needs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Ray's own progress bars, plans and notices drown ours.
    for library in ("ray.data", "ray.train"):
        logging.getLogger(library).setLevel(logging.ERROR)
    with contextlib.redirect_stdout(sys.stderr):
        _connect()
        try:
            yield from _controlled()
        except (InterruptedRunError, StalledError) as error:
            _leave(error)
        finally:
            ray.shutdown()


def _controlled() -> Generator[RunControl]:
    control = RunControl(
        run_id=secrets.token_hex(6),
        clock=time.monotonic,
        say=lambda line: click.echo(line, err=True),
        watch=StageMetrics(),
        stop=threading.Event(),
    )
    received: list[int] = []

    def stop(number: int, frame: object) -> None:
        received.append(number)
        control.stop.set()

    # After ray.init, which installs handlers of its own.
    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield control
    except InterruptedRunError as error:
        error.exit_code = 128 + received[0]
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _leave(error: PipelineError) -> None:
    # Threads of Ray Data may be in the middle of something, and `ray.shutdown` under their feet can
    # end the process with a status of its own. What is stored is safe, Ray's processes follow their
    # driver (as after kill -9), and a stop has to be quick: leave at once.
    click.echo(f"error: {error}", err=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(error.exit_code)


def _connect() -> None:
    try:
        address = named_cluster()
        if address is None:
            _start_local()
        else:
            join_cluster(address)
    except SystemExit:
        # Ray's own answer to SIGTERM while it starts. Shut down in this state it would abort; what
        # it has started follows its driver.
        click.echo("error: stopped while Ray was starting; nothing was done", err=True)
        os._exit(128 + signal.SIGTERM)


def _start_local() -> None:
    for left in reversed(range(_STARTS)):
        try:
            # "local": Ray would otherwise join a cluster that anybody started on this machine.
            ray.init(address="local", include_dashboard=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray's own is a bare one
            # Its patience of 30 s is not ours to set. What comes up late ends with this process.
            if "timed out during startup" not in str(error):
                raise
            if not left:
                raise PipelineError(f"Ray did not start in {_STARTS} attempts: {error}") from error
            click.echo("Ray did not start in time, this machine is busy: trying again", err=True)
        else:
            return
