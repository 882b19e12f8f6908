"""A comparing process: ``python -m pipelines.evaluation.ssim_worker``. Started by `ssim_pool` only.

In the process that feeds the GPU it would hold the interpreter's lock, and be timed as the network.
One JSON document per line::

    stdin                                                     stdout
                                                              {"kind": "ready"}
    {"kind": "pair", "shape": [T, H, W, 3], "frames": 7}      {"kind": "values", "values": [...]}
                                                              or {"kind": "fail", "detail": "..."}

The pair lies in two slots of that shape, of which the first ``frames`` frames count. The process
ends when its stdin closes, so it cannot outlive its parent.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from pipelines.frame_memory import FrameMemory
from pipelines.metrics import ssim_of_frames

__all__ = ["main"]

_NICE = 5
"""Whoever measures the time that the network takes goes first."""


def _answer(memory: FrameMemory, message: dict[str, Any]) -> dict[str, Any]:
    try:
        memory.attach(tuple(message["shape"]), 2)
        source_THWC, other_THWC = (slot[: message["frames"]] for slot in memory.slots)
        return {"kind": "values", "values": ssim_of_frames(source_THWC, other_THWC)}
    except Exception as error:  # noqa: BLE001  the parent says so, with the clip's name
        return {"kind": "fail", "detail": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Compare until stdin closes. ``argv[1]`` is the descriptor of the shared memory."""
    # Ctrl-C reaches the whole group; the parent decides, and our end follows from its own.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICE)
    # A library that prints must not break the protocol.
    output = os.dup(1)
    os.dup2(2, 1)
    memory = FrameMemory(int(sys.argv[1]))
    with os.fdopen(output, "wb", buffering=0) as answers:
        answers.write(b'{"kind": "ready"}\n')
        for line in sys.stdin.buffer:
            answers.write(json.dumps(_answer(memory, json.loads(line))).encode() + b"\n")


if __name__ == "__main__":
    main()
