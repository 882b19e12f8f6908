"""A process that works for us, as its parent sees it: started, spoken to with a deadline, killed.

Both speak in JSON, a document per line, and share memory for frames. What is said stands with the
worker: `pipelines.decode_worker`, `pipelines.evaluation.ssim_worker`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from pipelines.frame_memory import FrameMemory, anonymous_file

__all__ = ["Child", "ChildLostError", "ChildTimeoutError"]


class ChildLostError(Exception):
    """The process is gone; the message says how it ended."""


class ChildTimeoutError(Exception):
    """The process said nothing in time."""


class Child:
    """The process, its pipes and its shared memory. Ready for work when constructed.

    Args:
        module: What it runs, by name, with the descriptor of the memory as its argument; it says
            something once it is ready, and ends when its stdin does.
        clock: Seconds that only grow.
        startup_s: Seconds it may take to start.

    Raises:
        RuntimeError: It does not start; its own error stands on stderr.
        ChildLostError: It was killed while it started.
    """

    def __init__(self, module: str, clock: Callable[[], float], *, startup_s: float) -> None:
        self._clock = clock
        self._pending = b""
        self.memory = FrameMemory(anonymous_file())
        descriptor = self.memory.descriptor
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(descriptor)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(descriptor,),
            env=_environment(),
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        try:
            self.receive(startup_s)
        except (ChildLostError, ChildTimeoutError) as error:
            self.kill()
            if self._process.returncode > 0 or isinstance(error, ChildTimeoutError):
                raise RuntimeError(f"{module} does not start: {error}") from error
            raise

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def send(self, message: dict[str, Any]) -> None:
        """Say something.

        Raises:
            ChildLostError: If the process ended.
        """
        line = json.dumps(message).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._stdin.fileno(), line) :]
        except BrokenPipeError:
            raise ChildLostError(self._how_it_ended()) from None

    def receive(self, timeout_s: float) -> dict[str, Any]:
        """The next message.

        Raises:
            ChildTimeoutError: If none came in time.
            ChildLostError: If the process ended.
        """
        deadline = self._clock() + timeout_s
        poll = select.poll()
        poll.register(self._stdout, select.POLLIN | select.POLLHUP)
        while b"\n" not in self._pending:
            left_s = max(deadline - self._clock(), 0.0)
            if not poll.poll(left_s * 1000):
                raise ChildTimeoutError(f"nothing heard for {timeout_s:g} s")
            data = os.read(self._stdout.fileno(), 1 << 16)
            if not data:
                raise ChildLostError(self._how_it_ended())
            self._pending += data
        line, self._pending = self._pending.split(b"\n", 1)
        return json.loads(line)

    def kill(self) -> None:
        """End it and free what it held; may be repeated."""
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()
        for pipe in (self._stdin, self._stdout):
            pipe.close()
        self.memory.detach()
        if self.memory.descriptor >= 0:
            os.close(self.memory.descriptor)
            self.memory.descriptor = -1

    def _how_it_ended(self) -> str:
        # Its pipes are closed, so it is ending; but it may yet dump core.
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return "its pipes are closed"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def _environment() -> dict[str, str]:
    """Ours, with the same import path, and without the threads and arenas of a big process."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),  # noqa: PTH109
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
    }
