"""Joining a Ray cluster that somebody else has started: the one of ``RAY_ADDRESS``."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket

import ray
import ray.exceptions
from ray._private import services

from pipelines.errors import PipelineError

__all__ = ["has_autoscaler", "join_cluster", "named_cluster"]

_ANSWER_S = 5.0
"""Ray by itself asks an address where nobody is for minutes."""


def named_cluster() -> str | None:
    """``RAY_ADDRESS``; None where it is not set, to nothing, or to `local`, a Ray of one's own."""
    address = os.environ.get("RAY_ADDRESS", "")
    return None if address in ("", "local") else address


def join_cluster(address: str, *, log_to_driver: bool = True) -> None:
    """Connect to a running cluster.

    Args:
        address: ``HOST:PORT`` of its head, or ``auto`` for the one on this machine.
        log_to_driver: Print what its workers say.

    Raises:
        PipelineError: If nobody answers there, if it cannot be joined (another Ray, no token), or
            if the address is of something else (a Ray Client, the dashboard).
    """
    named = f"RAY_ADDRESS={address}"
    if address.startswith("ray://"):
        raise PipelineError(
            f"{named} is a Ray Client, through which Ray Data does not run; use `ray job submit`, "
            "or a machine of the cluster with RAY_ADDRESS=HOST:6379"
        )
    if "://" in address:
        raise PipelineError(
            f"{named} is no address of a cluster: HOST:6379, or auto (that of the dashboard is for "
            "`ray job submit`, in RAY_API_SERVER_ADDRESS)"
        )
    started = _taken_for_auto() if address == "auto" else address
    if started is not None:
        _check_answers(named if started == address else f"{named}, here {started}", started)
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=log_to_driver)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        said = str(error).rstrip(".")
        what = f"{named} cannot be joined: {said}"
        if started is None:
            raise PipelineError(f"{what}. Start one, or unset RAY_ADDRESS") from error
        raise PipelineError(
            f"{what}. Somebody answers there: is it the port of the head (6379), has it the same "
            "Ray, and the token of RAY_AUTH_TOKEN_PATH if it wants one?"
        ) from error


def has_autoscaler() -> bool:
    """Whether the cluster that was joined has an autoscaler; False if nobody can say.

    The nodes of an autoscaler have types, that of the head included; others are called ``node_ID``.
    What else it may start, it tells nobody.
    """
    address = ray.get_runtime_context().gcs_address
    types: set[str] = set()
    # What `ray status` reads of the first autoscaler, and of the second. Neither is promised to
    # stay where it is, and a doctor can do without.
    with contextlib.suppress(Exception):
        from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
        from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue]

        said = GcsClient(address=address).internal_kv_get(DEBUG_AUTOSCALING_STATUS.encode())
        types |= json.loads(said)["autoscaler_report"]["active_nodes"].keys()
    with contextlib.suppress(Exception):
        from ray.autoscaler.v2.sdk import get_cluster_status

        status = get_cluster_status(address)
        nodes = (*status.active_nodes, *status.idle_nodes)
        types |= {node.ray_node_type_name for node in nodes}
    return any(name and not name.startswith("node_") for name in types)


def _taken_for_auto() -> str | None:
    """As Ray has it: the one that runs here, else what was started last and may be gone."""
    running = services.find_gcs_addresses()
    if len(running) == 1:
        return next(iter(running))
    return services.find_bootstrap_address(None)


def _check_answers(named: str, address: str) -> None:
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or not host:
        raise PipelineError(f"{named} is no address: HOST:PORT, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise PipelineError(
            f"{named}: nobody answers there ({error}). Start a cluster, or unset RAY_ADDRESS to "
            "use this machine"
        ) from error
