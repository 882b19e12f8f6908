"""Videos to windows, in a process that may die: the only door to the decoder.

```
with DecoderProcess() as decoder:
    for window in decoder.windows(request):      # uint8 [frames, height, width, 3] and its span
        ...
    decoder.facts, decoder.summary
```
One decoding process serves many videos. It is replaced when it dies, hangs, runs out of memory, or
has served long enough; the caller sees windows, or one `DecodeError` with a reason.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.child import Child, ChildLostError, ChildTimeoutError
from pipelines.config import DecodeLimits
from pipelines.decode_types import (
    DecodedWindow,
    DecodeError,
    DecodeRequest,
    DecodeSummary,
    Patch,
    Segment,
    failure_from_json,
    request_to_json,
    summary_from_json,
)
from schemas.failures import Failure, FailureReason, FailureStage
from schemas.windows import StreamFacts, WindowSpan

__all__ = [
    "Buffers",
    "DecodeError",
    "DecodeRequest",
    "DecodeSummary",
    "DecodedWindow",
    "DecoderProcess",
    "Patch",
    "Segment",
]

Buffers = Callable[[WindowSpan, tuple[int, ...]], npt.NDArray[np.uint8]]
"""Gives a writable uint8 array of a shape [T, H, W, 3] for a window."""

_WORKER = "pipelines.decode_worker"
_RECYCLE_AFTER = 256
"""Videos per decoding process: FFmpeg and the codecs leak a little with each damaged file."""
_STARTUP_S = 120.0
"""Seconds a process may take to import its libraries on a loaded machine."""


class _SilentStoreError(ChildTimeoutError):
    """It is the store that is waited for, not the decoder."""


def _new_buffer(span: WindowSpan, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    del span
    return np.empty(shape, np.uint8)


class DecoderProcess:
    """Supervises one decoding process. Starts it with the first video; use from one thread.

    Windows of a video whose process died are not decoded twice for the caller: the next process
    goes on behind the last window given out, which decoding (deterministic) makes possible.

    Args:
        recycle_after: Videos after which the process is replaced.
        clock: Seconds that only grow; for tests.
    """

    def __init__(
        self, *, recycle_after: int = _RECYCLE_AFTER, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._recycle_after = recycle_after
        self._clock = clock
        self._child: Child | None = None
        self._num_videos = 0
        self._in_video = False
        self._waiting = False
        self._busy_s = 0.0
        self._finalizer: Callable[[], object] = lambda: None
        self.facts: StreamFacts | None = None
        """Of the current video: known from its first window on."""
        self.summary = DecodeSummary()
        """Of the current video: what was done so far; final when `windows` has ended."""

    def __enter__(self) -> DecoderProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int | None:
        """Process id of the decoding process, None while there is none."""
        return self._child.pid if self._child is not None else None

    def kill(self) -> None:
        """End the decoding process, whatever it does; the next video starts another one."""
        if self._child is not None:
            self._finalizer()
            self._child = None
        self._in_video = False

    def windows(
        self, request: DecodeRequest, *, buffers: Buffers = _new_buffer
    ) -> Iterator[DecodedWindow]:
        """The wanted windows of a video, in order.

        The next window is decoded while the caller works on this one. Leaving the loop early ends
        the decoding process.

        Args:
            request: What to decode.
            buffers: Where each window is copied to; it is what `DecodedWindow.frames_THWC` then is.

        Raises:
            DecodeError: The video cannot be decoded whole; what came before must be thrown away.
            RuntimeError: The decoding process does not start: nothing to do with the video.
        """
        if self._in_video:
            # An earlier iterator was left hanging.
            self.kill()
        self.facts, self.summary = None, DecodeSummary()
        self._busy_s = 0.0
        next_window, ends = 0, "never started"
        for start in range(1, request.limits.attempts + 1):
            try:
                attempt = self._attempt(request, buffers, first_window=next_window, start=start)
                for window in attempt:
                    next_window = window.span.window_index + 1
                    yield window
            except ChildLostError as lost:
                ends = str(lost)
                self.kill()
            except _SilentStoreError as silent:
                self.kill()
                raise self._error(FailureReason.SOURCE_UNAVAILABLE, str(silent)) from None
            except ChildTimeoutError as timed_out:
                self.kill()
                raise self._error(FailureReason.DECODE_TIMEOUT, str(timed_out)) from None
            except GeneratorExit:
                self.kill()
                raise
            else:
                return
        detail = f"the decoding process died {request.limits.attempts} times: {ends}"
        raise self._error(FailureReason.DECODER_CRASH, detail)

    def _attempt(
        self, request: DecodeRequest, buffers: Buffers, *, first_window: int, start: int
    ) -> Iterator[DecodedWindow]:
        """One try at a video, in one process."""
        child = self._ready()
        self._in_video, self._waiting = True, False
        busy_before_s = self._busy_s
        child.send({"kind": "video", **request_to_json(request, first_window=first_window)})
        while True:
            message = self._receive(child, request.limits)
            self._busy_s = busy_before_s + message["busy_s"]
            self._waiting = message.get("waiting", False)
            self.summary = summary_from_json(message["summary"], num_starts=start)
            if message.get("facts") is not None:
                self.facts = StreamFacts(**message["facts"])
            if message["kind"] == "layout":
                child.memory.attach(tuple(message["shape"]), message["num_slots"])
            elif message["kind"] == "window":
                slot, span = message["slot"], WindowSpan(**message["span"])
                shared_THWC = child.memory.slots[slot]
                frames_THWC = buffers(span, shared_THWC.shape)
                np.copyto(frames_THWC, shared_THWC)
                child.send({"kind": "free", "slot": slot})
                yield DecodedWindow(span=span, frames_THWC=frames_THWC)
            elif message["kind"] in ("done", "fail"):
                break
        self._in_video = False
        if message["kind"] == "fail":
            raise DecodeError(failure_from_json(message["failure"]))

    def _receive(self, child: Child, limits: DecodeLimits) -> dict[str, Any]:
        left_s = max(limits.total_s - self._busy_s, 0.0)
        try:
            return child.receive(min(limits.stall_s, left_s))
        except ChildTimeoutError:
            if limits.stall_s > left_s:
                limit = f"more than {limits.total_s:g} s of decoding"
                raise ChildTimeoutError(limit) from None
            if self._waiting:
                limit = f"the store said nothing for {limits.stall_s:g} s"
                raise _SilentStoreError(limit) from None
            raise ChildTimeoutError(f"no progress for {limits.stall_s:g} s") from None

    def _error(self, reason: FailureReason, detail: str) -> DecodeError:
        stage = FailureStage.OPEN if self.facts is None else FailureStage.DECODE
        num_frames = self.summary.num_frames_decoded
        return DecodeError(
            Failure(reason=reason, stage=stage, detail=detail, num_frames=num_frames)
        )

    def _ready(self) -> Child:
        """A living process that waits for a video."""
        if self._child is not None and (
            self._num_videos >= self._recycle_after or not self._child.is_alive()
        ):
            self.kill()
        if self._child is None:
            self._child = Child(_WORKER, self._clock, startup_s=_STARTUP_S)
            self._num_videos = 0
            # Ends it when the supervisor is collected or the interpreter exits.
            self._finalizer = weakref.finalize(self, self._child.kill)
        self._num_videos += 1
        return self._child
