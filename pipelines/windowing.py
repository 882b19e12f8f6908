"""A sequence of frames becomes windows of a fixed number of frames, in bounded memory.

Shapes: T frames of a window, H rows, W columns, C = 3.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipelines.config import WindowConfig
from pipelines.timeline import Sample
from schemas.windows import WindowSpan

__all__ = ["CutWindow", "Picture", "WindowCutter"]


class Picture(Protocol):
    """A frame that is made small only when somebody asks."""

    def pixels(self) -> npt.NDArray[np.uint8]:
        """RGB, uint8 [H, W, 3]; the array stays valid after the next frame."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CutWindow:
    """A finished window.

    Attributes:
        span: Where it lies.
        frames_THWC: The buffer it was written to, uint8; a short tail repeats its last frame.
    """

    span: WindowSpan
    frames_THWC: npt.NDArray[np.uint8]


class WindowCutter:
    """Feeds frames into windows: ``frames`` consecutive ones, the next window ``overlap`` earlier.

    Frames are written straight into the buffer of their window, and only if a wanted window holds
    them; the last ``overlap`` frames are kept for the window after. A tail made of nothing but
    overlap is no window.

    Args:
        window: Length, overlap, and what happens to a short tail.
        wanted: Whether a window (by index) is to be made; the others are counted only.
        new_buffer: Gives uint8 [T, H, W, 3] for the next wanted window; may block.
    """

    def __init__(
        self,
        window: WindowConfig,
        *,
        wanted: Callable[[int], bool],
        new_buffer: Callable[[], npt.NDArray[np.uint8]],
    ) -> None:
        self._window = window
        self._step = window.frames - window.overlap
        self._wanted = wanted
        self._new_buffer = new_buffer
        self._buffer: npt.NDArray[np.uint8] | None = None
        self._filled = 0
        self._start_s = self._end_s = 0.0
        self._recent: deque[tuple[float, float, npt.NDArray[np.uint8] | None]] = deque(
            maxlen=window.overlap
        )
        self.num_samples = 0
        """Frames taken in."""
        self.num_windows = 0
        """Windows finished, wanted or not."""
        self.num_dropped = 0
        """Frames of a short tail that no window holds (``tail = drop``); known after `finish`."""

    def add(self, sample: Sample[Picture]) -> CutWindow | None:
        """Take the next frame; returns a window if this frame completes a wanted one."""
        if self._filled == 0:
            for entry in tuple(self._recent):
                self._put(*entry)
        pixels = sample.item.pixels() if self._needed(self.num_samples) else None
        self.num_samples += 1
        self._put(sample.start_s, sample.end_s, pixels)
        return self._close() if self._filled == self._window.frames else None

    def finish(self) -> CutWindow | None:
        """End of the video; returns the tail if it is a wanted window."""
        if self._filled == 0:
            return None
        if self._window.tail == "drop":
            self.num_dropped = self._filled - (self._window.overlap if self.num_windows else 0)
            return None
        if self._buffer is not None:
            self._buffer[self._filled :] = self._buffer[self._filled - 1]
        return self._close()

    def _needed(self, index: int) -> bool:
        first = max(0, -((self._window.frames - 1 - index) // self._step))
        return any(self._wanted(window) for window in range(first, index // self._step + 1))

    def _put(self, start_s: float, end_s: float, pixels: npt.NDArray[np.uint8] | None) -> None:
        if self._filled == 0:
            self._start_s = start_s
            self._buffer = self._new_buffer() if self._wanted(self.num_windows) else None
        if self._buffer is not None:
            assert pixels is not None, "a frame of a wanted window was not rendered"
            self._buffer[self._filled] = pixels
        self._filled += 1
        self._end_s = end_s
        self._recent.append((start_s, end_s, pixels))

    def _close(self) -> CutWindow | None:
        span = WindowSpan(
            window_index=self.num_windows,
            start_frame=self.num_windows * self._step,
            num_frames=self._filled,
            start_time_s=self._start_s,
            end_time_s=self._end_s,
        )
        buffer, self._buffer = self._buffer, None
        self._filled = 0
        self.num_windows += 1
        return None if buffer is None else CutWindow(span=span, frames_THWC=buffer)
