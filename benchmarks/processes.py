"""A run as a group of processes that can be watched, stopped and shot at.

Everything a run starts (its Ray, Ray's workers, the decoding processes) stays in the session of its
driver, also after the driver is gone. So a session is what is searched for victims and cleaned up;
Ray that others run on this machine is never touched. Linux only: reads ``/proc``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

__all__ = ["VICTIMS", "Session", "data_digests", "descendants", "wait_until"]

VICTIMS = {
    "actor": b"ray::MapWorker(MapBatches(AnalyseUnits))",
    "decoder": b"pipelines.decode_worker",
    "task": b"ray::MapBatches(decode_videos)",
}
"""Kinds of processes that a run can lose, and what their command line holds while they work."""

_POLL_S = 0.05
_AGENTS = (b"ray::DashboardAgent", b"ray::RuntimeEnvAgent")
"""Two helpers of Ray that notice only after a minute that their node is gone. They run no code of
ours."""


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    parent: int
    session: int
    command: bytes
    state: str


def _processes() -> list[_Process]:
    found: list[_Process] = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        # It may end between any two of these lines.
        with contextlib.suppress(OSError, IndexError):
            # The name, in parentheses, may hold blanks: state is the first field behind it.
            fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
            numbers = int(folder.name), int(fields[1]), int(fields[3])
            found.append(_Process(*numbers, command, fields[0]))
    return found


def descendants(ancestor: int, kind: str) -> list[int]:
    """Living processes of a kind of `VICTIMS` below ``ancestor`` in the tree of processes."""
    processes = _processes()
    parents = {process.pid: process.parent for process in processes}

    def descends(pid: int) -> bool:
        while pid in parents and pid != ancestor:
            pid = parents[pid]
        return pid == ancestor

    return [p.pid for p in processes if VICTIMS[kind] in p.command and descends(p.pid)]


def wait_until(condition: Callable[[], object], *, timeout_s: float, what: str = "") -> None:
    """Poll until ``condition`` is true.

    Raises:
        TimeoutError: If it is not, in time.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:g} s for {what or condition}")
        time.sleep(_POLL_S)


class Session:
    """One command with a session of its own; whatever is left of it ends with the ``with`` block.

    Ray keeps its files of this session in a folder that is deleted afterwards.

    Args:
        command: Program and arguments.
        log: Takes stderr; stdout goes to the same name with ``.out``.
        folder: Working directory.
        environment: Variables to set besides those of this process.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        folder: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        self.output = log.with_suffix(".out")
        # Below /tmp whatever TMPDIR says: the paths of Ray's sockets may have 107 bytes.
        self._ray_folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
        variables = {**os.environ, "RAY_TMPDIR": self._ray_folder, "PYTHONUNBUFFERED": "1"}
        # A cluster of the person who tests must not become part of the test.
        variables.pop("RAY_ADDRESS", None)
        with log.open("wb") as errors, self.output.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env={**variables, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    @property
    def pid(self) -> int:
        """Process id of the command itself, the driver."""
        return self._process.pid

    def running(self) -> bool:
        """Whether the command itself has not ended yet."""
        return self._process.poll() is None

    def wait(self, timeout_s: float) -> int:
        """Exit status of the command; negative if a signal ended it.

        Raises:
            subprocess.TimeoutExpired: If it goes on for longer.
        """
        return self._process.wait(timeout_s)

    def send(self, number: int) -> None:
        """Send a signal to the command alone."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to the command alone; its Ray and its workers are left behind."""
        self._process.kill()
        self._process.wait(10)

    def members(self, kind: str | None = None) -> list[int]:
        """Living processes of the session: all of them, or those of a kind of `VICTIMS`."""
        return [
            process.pid
            for process in _processes()
            if process.session == self.pid
            and process.state != "Z"
            and (kind is None or VICTIMS[kind] in process.command)
        ]

    def kill_member(self, pid: int, number: int = signal.SIGKILL) -> bool:
        """Signal one process, if it still is a member; False if it is gone."""
        if pid not in self.members():
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            return True
        return False

    def leftovers(self) -> dict[int, str]:
        """Living processes that run our code or could start some, as pid and command line."""
        return {
            process.pid: process.command.decode(errors="replace").strip()
            for process in _processes()
            if process.session == self.pid
            and process.state != "Z"
            and not process.command.startswith(_AGENTS)
        }

    def wait_leftovers(self, timeout_s: float) -> None:
        """Wait until every one of `leftovers` has ended by itself.

        Raises:
            TimeoutError: If one goes on for longer.
        """
        self._process.wait(timeout_s)
        try:
            wait_until(lambda: not self.leftovers(), timeout_s=timeout_s)
        except TimeoutError as error:
            raise TimeoutError(f"after {timeout_s:g} s: {self.leftovers()}") from error

    def end(self) -> None:
        """Kill what is left, and forget Ray's files."""
        deadline = time.monotonic() + 30
        while members := self.members():
            for pid in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.poll()
            if time.monotonic() > deadline:
                raise TimeoutError(f"processes {members} survive SIGKILL")
            time.sleep(_POLL_S)
        self._process.wait(10)
        shutil.rmtree(self._ray_folder, ignore_errors=True)


def data_digests(output: Path) -> dict[str, str]:
    """SHA-256 of every file below ``data`` and ``wds``, and of what a reader starts from.

    Left-over temporary files count: a finished corpus holds none.
    """
    files = [path for name in ("data", "wds") for path in (output / name).rglob("*")]
    files += [output / "meta" / name for name in ("manifest.parquet", "statistics.json")]
    return {
        path.relative_to(output).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(files)
        if path.is_file()
    }
