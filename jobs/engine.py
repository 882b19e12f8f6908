"""Starting Ray, and stopping when asked: what a run takes from its surroundings."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, NoReturn

import click
import ray
from ray._private import utils as ray_utils

from jobs.cluster import join_cluster, named_cluster
from pipelines.errors import InterruptedRunError, PipelineError, StalledError
from pipelines.observe import RunControl
from pipelines.stage_metrics import StageMetrics

__all__ = ["engine"]

_STARTS = 3
_START_S = 600.0
_PATIENCE_S = 5.0
_FORK_S = 0.5


@contextlib.contextmanager
def engine(
    *, patience_s: float | None = _PATIENCE_S, start_s: float = _START_S
) -> Generator[RunControl]:
    """A connection to Ray (that of ``RAY_ADDRESS``, else a local one) and the control of a run.

    Until the end everything printed goes to stderr: Ray prints what it and its workers have to say,
    and stdout is for results. `InterruptedRunError` and `StalledError` end the process from here,
    with their exit codes (for a stop: 128 + the signal).

    Args:
        patience_s: Seconds from being asked to stop until the process ends wherever it is (as after
            kill -9, what is stored is safe). None: it takes the time it needs. A second Ctrl-C does
            not wait.
        start_s: Seconds that Ray may take to start; then the process says where it stood, and ends
            with exit code 1.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Threads of torch that wait for each other spin by default, on the cores that decoding needs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Ray's own progress bars, plans and notices drown ours.
    for library in ("ray.data", "ray.train"):
        logging.getLogger(library).setLevel(logging.ERROR)
    with contextlib.redirect_stdout(sys.stderr):
        _connect(start_s)
        try:
            yield from _controlled(patience_s)
        except (InterruptedRunError, StalledError) as error:
            _leave(f"error: {error}", error.exit_code)
        finally:
            ray.shutdown()


def _controlled(patience_s: float | None) -> Generator[RunControl]:
    control = RunControl(
        run_id=secrets.token_hex(6),
        clock=time.monotonic,
        say=lambda line: click.echo(line, err=True),
        watch=StageMetrics(),
        stop=threading.Event(),
    )
    stop = _Stop(control, patience_s)
    with _on_signals(stop):
        try:
            yield control
        except InterruptedRunError as error:
            error.exit_code = stop.exit_code
            raise
        finally:
            stop.over.set()


class _Stop:
    """What SIGTERM and Ctrl-C do to a run.

    Attributes:
        exit_code: 128 + the first signal.
        over: Set when there is nothing to stop any more.
    """

    def __init__(self, control: RunControl, patience_s: float | None) -> None:
        self._control = control
        self._patience_s = patience_s
        self.exit_code = 0
        self.over = threading.Event()

    def __call__(self, number: int, frame: object) -> None:
        if number == signal.SIGINT and self.exit_code == 128 + number:
            self._leave()
        if not self.exit_code:
            self.exit_code = 128 + number
            self._control.stop.set()
            threading.Thread(target=self._leave_later, daemon=True).start()

    def _leave_later(self) -> None:
        # Work looks up when it waits for Ray. Listing, folding receipts, or a store that does not
        # answer can take minutes.
        if self._patience_s is not None and not self.over.wait(self._patience_s):
            self._leave()

    def _leave(self) -> None:
        try:
            self._control.check()
        except InterruptedRunError as error:
            _leave(f"error: {error}", self.exit_code)


@contextlib.contextmanager
def _on_signals(handler: Callable[[int, Any], None]) -> Generator[None]:
    stops = (signal.SIGTERM, signal.SIGINT)
    previous = {number: signal.signal(number, handler) for number in stops}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def _leave(message: str, exit_code: int) -> NoReturn:
    # Threads of Ray Data may be in the middle of something, and `ray.shutdown` under their feet can
    # end the process with a status of its own. What is stored is safe, Ray's processes follow their
    # driver (as after kill -9), and a stop has to be quick: leave at once.
    try:
        click.echo(message, err=True)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(exit_code)


def _connect(start_s: float) -> None:
    with _on_signals(_leave_unbegun), _without_handlers_of_ray(), _at_most(start_s):
        address = named_cluster()
        if address is None:
            _start_local()
        else:
            join_cluster(address)


@contextlib.contextmanager
def _at_most(seconds: float) -> Generator[None]:
    # Ray's client waits without end for a node whose processes died as they started, and lets no
    # thread of Python run meanwhile.
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or sys.stderr)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def _without_handlers_of_ray() -> Generator[None]:
    # Its answer to SIGTERM is an exception. Raised in a callback of a fork it is ignored, and the
    # lock of `logging` stays taken: the run then hangs.
    theirs = ray_utils.set_sigterm_handler
    ray_utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        ray_utils.set_sigterm_handler = theirs


def _leave_unbegun(number: int, frame: object = None) -> NoReturn:
    # Shut down in this state Ray would abort. What it has started follows its driver, but for a
    # process that was forked this moment and had no time yet to ask for that.
    time.sleep(_FORK_S)
    _leave("error: stopped while Ray was starting; nothing was done", 128 + number)


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
