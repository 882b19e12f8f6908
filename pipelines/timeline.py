"""When frames are shown, and which of them another rate shows.

Presentation times are repaired where a file lacks or garbles them; good ones pass unchanged.

Times are integers, in ticks of the stream's time base, until the moment they are reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeVar

__all__ = ["FrameClock", "Sample", "Timed", "resample"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_DEEPEST_REORDER = 16
"""Frames: H.264 and HEVC reorder at most 16, so a longer step back is a clock that was set back."""

_LONGEST_FRAME_S = 600
"""Seconds: a longer step forward is a broken clock (FLV and TS recordings jump by hours), not a
picture that stood still; at a fixed rate it would become millions of equal frames."""

_DEFAULT_RATE = Fraction(25)
"""Where neither container nor stream says a rate; FFmpeg's own default."""


@dataclass(frozen=True, slots=True)
class Timed(Generic[T_co]):
    """Something shown from ``start`` to ``end``, in ticks."""

    start: int
    end: int
    item: T_co


@dataclass(frozen=True, slots=True)
class Sample(Generic[T_co]):
    """A frame of the sampled sequence, shown from ``start_s`` to ``end_s`` (source timeline)."""

    start_s: float
    end_s: float
    item: T_co


class FrameClock:
    """Gives frames, in the order in which they are shown, strictly increasing times.

    Good presentation times pass unchanged. Otherwise, in this order: decoding times where the
    presentation times step back more often (AVI with B-frames), the end of the frame before where
    both are missing or step back a little, and a shift of all that follows where the clock was set
    back or jumped ahead (joined streams).
    """

    def __init__(self, *, time_base: Fraction, rate: Fraction | None) -> None:
        self.time_base = time_base
        self._length = max(round(1 / ((rate or _DEFAULT_RATE) * time_base)), 1)
        self._longest = max(round(_LONGEST_FRAME_S / time_base), 1)
        self._last: int | None = None
        self._next = 0
        self._shift = 0
        self._faulty = {"pts": 0, "dts": 0}
        self._latest: dict[str, int] = {}

    def place(self, *, pts: int | None, dts: int | None, duration: int) -> tuple[int, int]:
        """Start and end, in ticks, of the next frame.

        Args:
            pts: Presentation time as decoded, None if missing.
            dts: Decoding time of the packet that made the decoder give this frame out, which, as
                frames come in display order, is a usable clock; None if missing.
            duration: Ticks, 0 if unknown.
        """
        length = min(duration, self._longest) if duration > 0 else self._length
        stamp = self._stamp(pts, dts)
        start = self._next if stamp is None else self._continue(stamp, length)
        self._last, self._next = start, start + length
        return start, start + length

    def _stamp(self, pts: int | None, dts: int | None) -> int | None:
        for name, value in (("pts", pts), ("dts", dts)):
            if value is None:
                continue
            if value <= self._latest.get(name, value - 1):
                self._faulty[name] += 1
            self._latest[name] = value
        if pts is None or (dts is not None and self._faulty["pts"] > self._faulty["dts"]):
            return dts
        return pts

    def _continue(self, stamp: int, length: int) -> int:
        start = stamp + self._shift
        if self._last is None or self._last < start <= self._next + self._longest:
            return start
        set_back = start < self._last - _DEEPEST_REORDER * length
        if set_back or start > self._last:
            self._shift = self._next - stamp
        return self._next


def resample(
    frames: Iterable[Timed[T]], *, time_base: Fraction, fps: float | None
) -> Iterator[Sample[T]]:
    """The frames of a fixed rate: at each instant the last frame that was shown by then.

    Instants are start + k / fps, from the first frame's start to before the last frame's end. A
    frame may be given several times, or never. Holds one frame.

    A frame is shown until the next one begins; the length it claims counts for the last one alone.
    Where the rate varies that length is often another: MP4 deals lengths out in coded order, so
    B-frames carry each other's, and spans of windows would overlap.

    Args:
        frames: In order, with strictly increasing starts.
        time_base: Seconds per tick.
        fps: Samples per second; None gives each frame once.
    """
    if fps is None:
        yield from _each_once(frames, time_base)
        return
    # The rate a person wrote (29.97), not its nearest binary fraction.
    step = 1 / (Fraction(fps).limit_denominator(1_000_000) * time_base)
    shown: Timed[T] | None = None
    origin = index = 0
    for frame in frames:
        if shown is None:
            origin = frame.start
        while shown is not None and index * step < frame.start - origin:
            yield _instant(shown, origin, index, step, time_base)
            index += 1
        shown = frame
    while shown is not None and index * step < shown.end - origin:
        yield _instant(shown, origin, index, step, time_base)
        index += 1


def _each_once(frames: Iterable[Timed[T]], time_base: Fraction) -> Iterator[Sample[T]]:
    shown: Timed[T] | None = None
    for frame in frames:
        if shown is not None:
            yield Sample(float(shown.start * time_base), float(frame.start * time_base), shown.item)
        shown = frame
    if shown is not None:
        yield Sample(float(shown.start * time_base), float(shown.end * time_base), shown.item)


def _instant(
    shown: Timed[T], origin: int, index: int, step: Fraction, time_base: Fraction
) -> Sample[T]:
    start = (origin + index * step) * time_base
    end = (origin + (index + 1) * step) * time_base
    return Sample(float(start), float(end), shown.item)
