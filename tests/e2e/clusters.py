"""Clusters for the tests: free ports, and Ray's command line."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from runs import PATIENCE_S, REPOSITORY

RAY = str(Path(sys.executable).with_name("ray"))


def free_ports(count: int) -> int:
    """The first of ``count`` ports in a row that nobody listens on."""
    for _ in range(100):
        first = random.randrange(20_000, 30_000, count)
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise AssertionError("no free ports")


def call(command: list[str], environment: Mapping[str, str], *, errors: bool = True) -> str:
    """Run a command to its end; its output (and errors) as text."""
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if errors else None,
        timeout=PATIENCE_S,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
