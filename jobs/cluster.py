"""Joining a Ray cluster that somebody else has started: the one of ``RAY_ADDRESS``."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import tempfile
from pathlib import Path

import ray

from pipelines.errors import PipelineError

__all__ = ["join_cluster", "named_cluster"]

_ANSWER_S = 5.0
"""Ray by itself asks an address where nobody is for minutes."""


def named_cluster() -> str | None:
    """``RAY_ADDRESS``; None where it is not set, or to nothing."""
    return os.environ.get("RAY_ADDRESS") or None


def join_cluster(address: str, *, log_to_driver: bool = True) -> None:
    """Connect to the cluster at an address, given in the environment, too.

    Args:
        address: ``HOST:PORT`` of its head, or ``auto`` for the one on this machine.
        log_to_driver: Print what its workers say.

    Raises:
        PipelineError: If there is none, or none that this process may join or a run works on.
    """
    named = f"RAY_ADDRESS={address}"
    if address.startswith("ray://"):
        raise PipelineError(
            f"{named} is a Ray Client, through which Ray Data does not run; use `ray job submit`, "
            "or a machine of the cluster with RAY_ADDRESS=HOST:6379"
        )
    started = _last_started() if address == "auto" else address
    if started is not None and started != "local":
        _check_answers(named if started == address else f"{named}, last {started}", started)
    try:
        ray.init(logging_level=logging.ERROR, log_to_driver=log_to_driver)
    except (ConnectionError, RuntimeError) as error:
        said = str(error).rstrip(".")
        what = f"{named} cannot be joined: {said}"
        if started is None:
            raise PipelineError(f"{what}. Start one, or unset RAY_ADDRESS") from error
        raise PipelineError(
            f"{what}. Somebody answers there: is it the port of the head (6379), has it the same "
            "Ray, and the token of RAY_AUTH_TOKEN_PATH if it wants one?"
        ) from error


def _last_started() -> str | None:
    """What Ray takes for ``auto``: it stays when that cluster is gone. None if there is none."""
    folder = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    with contextlib.suppress(OSError):
        return (folder / "ray" / "ray_current_cluster").read_text().strip() or None
    return None


def _check_answers(named: str, address: str) -> None:
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or not host:
        raise PipelineError(f"{named} is no address: HOST:PORT, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise PipelineError(
            f"{named}: nobody answers there ({error}). Start a cluster, or unset RAY_ADDRESS to "
            "use this machine"
        ) from error
