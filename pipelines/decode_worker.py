"""The decoding process: ``python -m pipelines.decode_worker``. Started by `pipelines.decode` only.

Videos are hostile input to a million lines of C. They are decoded here, in a process that may
crash, hang or eat memory, and that anybody may kill. One JSON document per line::

    stdin                                     stdout
                                              {"kind": "ready"}
    {"kind": "video", ...DecodeRequest}       {"kind": "layout", "shape": ..., "facts": ...}
                                              {"kind": "window", "slot": 0, "span": ...}
    {"kind": "free", "slot": 0}               {"kind": "beat", "waiting": false}
                                              {"kind": "done"} or {"kind": "fail", ...}

Pixels go through `frame_memory`. With two slots the next window is decoded while the receiver works
on the last one. The process ends when its stdin closes, in whatever state it is, so it cannot
outlive its parent.
"""

from __future__ import annotations

import faulthandler
import json
import os
import queue
import resource
import select
import signal
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.damage import FFmpegLog
from pipelines.decode_types import (
    DecodeError,
    DecodeRequest,
    failure_to_json,
    request_from_json,
)
from pipelines.decoding import VideoDecoding
from pipelines.frame_memory import FrameMemory
from schemas.failures import FailureReason
from schemas.windows import StreamFacts

__all__ = ["main"]

_NUM_SLOTS = 2
_BEAT_S = 0.5
"""Seconds between signs of life while no window gets finished."""
_ORPHAN_CHECK_S = 2.0
"""Seconds. A process forked off our parent may keep our stdin open after the parent is gone."""


class _Mail:
    """Reads stdin on a thread, so that its end is noticed while C code decodes."""

    def __init__(self) -> None:
        self.videos: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.free: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._parent = os.getppid()
        threading.Thread(target=self._read, name="mail", daemon=True).start()

    def _read(self) -> None:
        pending = b""
        while True:
            readable, _, _ = select.select([0], [], [], _ORPHAN_CHECK_S)
            if os.getppid() != self._parent:
                os._exit(0)
            if not readable:
                continue
            data = os.read(0, 1 << 16)
            if not data:
                os._exit(0)
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                message = json.loads(line)
                if message["kind"] == "free":
                    self.free.put(message["slot"])
                else:
                    self.videos.put(message)


class _Session:
    """Serves one video."""

    def __init__(self, document: dict[str, Any], worker: _Worker) -> None:
        self.request, first_window = request_from_json(document)
        self._worker = worker
        self._prepared = False
        self._idle_s = 0.0
        self._began = self._spoke = time.monotonic()
        self._decoding = VideoDecoding(
            self.request,
            log=worker.log,
            buffers=self._buffer,
            progress=self._beat,
            waiting=lambda waiting: self._say("beat", waiting=waiting),
            first_window=first_window,
        )

    def run(self) -> bool:
        """Decode it; False if the process had better be replaced."""
        memory = self._worker.memory
        try:
            for window in self._decoding.windows():
                slots = memory.slots
                slot = next(i for i, array in enumerate(slots) if array is window.frames_THWC)
                self._say("window", slot=slot, span=asdict(window.span))
        except DecodeError as error:
            self._say("fail", failure=failure_to_json(error.failure))
            return error.failure.reason != FailureReason.OUT_OF_MEMORY
        self._say("done", facts=_facts(self._decoding.facts))
        return True

    def _buffer(self, shape: tuple[int, int, int, int]) -> npt.NDArray[np.uint8]:
        memory = self._worker.memory
        if not self._prepared:
            memory.resize(shape, _NUM_SLOTS)
            memory.attach(tuple(shape), _NUM_SLOTS)
            self._worker.refill(_NUM_SLOTS)
            self._say(
                "layout",
                shape=shape,
                num_slots=_NUM_SLOTS,
                facts=_facts(self._decoding.facts),
            )
            self._prepared = True
        asked = time.monotonic()
        slot = self._worker.mail.free.get()
        self._idle_s += time.monotonic() - asked
        return memory.slots[slot]

    def _beat(self) -> None:
        if time.monotonic() - self._spoke >= _BEAT_S:
            self._say("beat")

    def _say(self, kind: str, **fields: Any) -> None:  # noqa: ANN401  any JSON
        self._spoke = time.monotonic()
        busy_s = self._spoke - self._began - self._idle_s
        summary = asdict(self._decoding.summary)
        self._worker.say({"kind": kind, "busy_s": busy_s, "summary": summary, **fields})


class _Worker:
    def __init__(self, *, memory: FrameMemory, log: FFmpegLog, output: int) -> None:
        self.memory = memory
        self.log = log
        self.mail = _Mail()
        self._output = output

    def say(self, message: dict[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        while line:
            line = line[os.write(self._output, line) :]

    def refill(self, num_slots: int) -> None:
        """All slots are free again: the receiver copies, and forgets those of the video before."""
        while not self.mail.free.empty():
            self.mail.free.get()
        for slot in range(num_slots):
            self.mail.free.put(slot)

    def serve(self) -> None:
        self.say({"kind": "ready"})
        while True:
            session = _Session(self.mail.videos.get(), self)
            _limit_memory(session.request)
            if not session.run():
                return
            del session


def _limit_memory(request: DecodeRequest) -> None:
    """What the process holds now, and what the request allows on top."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    allowed = pages * resource.getpagesize() + request.limits.memory_mb * (1 << 20)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        allowed = min(allowed, hard)
    resource.setrlimit(resource.RLIMIT_AS, (allowed, hard))


def _facts(facts: StreamFacts | None) -> dict[str, Any] | None:
    return asdict(facts) if facts is not None else None


def main() -> None:
    """Serve videos until stdin closes. ``argv[1]`` is the descriptor of the shared memory."""
    faulthandler.enable()
    # Ctrl-C reaches the whole group; the parent decides, and our end follows from its own.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A library that prints must not break the protocol.
    output = os.dup(1)
    os.dup2(2, 1)
    with FFmpegLog() as log:
        _Worker(memory=FrameMemory(int(sys.argv[1])), log=log, output=output).serve()


if __name__ == "__main__":
    main()
