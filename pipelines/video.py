"""One video stream, packet by packet, with every sign of damage turned into a `VideoError`.

A damaged video is set aside whole: FFmpeg paints over missing data with what lies nearby, and such
pictures must not become tokens. What comes before the first keyframe of a recording that starts in
the middle of things is not damage; it is dropped and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from types import TracebackType

import av.error
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pipelines.config import DecodeLimits
from pipelines.damage import (
    FFmpegLog,
    LogLine,
    VideoError,
    harmless,
    misconfigured,
    reason_in_log,
)
from pipelines.endings import early_ending
from pipelines.video_source import VideoBytes, open_container, open_stream
from schemas.failures import FailureReason, FailureStage

__all__ = ["VideoReader"]

_STILL_CONTAINERS = frozenset(("gif", "apng"))
_LEAST_BYTES = 3
"""Bytes per pixel that any decoder needs: this picture and one to predict it from, 4:2:0."""
# Containers that know the size of each packet: a cut one is flagged, so an error in the last
# packet is not by itself a sign of truncation.
_SIZED = frozenset(("mp4", "matroska", "avi", "flv", "asf", "mxf"))


class VideoReader:
    """Opens a container, chooses its video stream, and gives its frames in display order.

    One thread (more never lower the CPU cost per frame). A context manager: an unclosed container
    leaks its decoder.

    Args:
        source: The input; stays open, and must outlive the reader.
        limits: Pixels and frames beyond which a video is refused.
        log: FFmpeg's log, entered.
        progress: Called after each packet.

    Raises:
        VideoError: NO_VIDEO_STREAM, UNSUPPORTED_CODEC, NOT_A_VIDEO.
        av.error.FFmpegError: The container cannot be opened; see `damage.failure_of`.
    """

    def __init__(
        self,
        source: VideoBytes,
        *,
        limits: DecodeLimits,
        log: FFmpegLog,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        self._source = source
        self._limits = limits
        self._log = log
        self._progress = progress
        self._container: InputContainer = open_container(source, max_pixels=limits.max_pixels)
        self.container_name = self._container.format.name
        self.stream = open_stream(self._container, limits=limits, log=log)
        self._packets = self._container.demux(self.stream)
        self._num_packets = 0
        self._key_pts: int | None = None
        self._seen_key = False
        self._leading_error = ""
        # Whatever was said while the container was probed: a header may lie, the stream decides.
        self._opening = log.drain()
        self.num_frames = 0
        """Frames given out so far."""
        self.num_undecodable = 0
        """Packets and pictures dropped before the first keyframe."""

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._container.close()

    @property
    def time_base(self) -> Fraction:
        """Seconds per tick of the frames' times."""
        return self.stream.time_base or Fraction(1, 1_000_000)

    @property
    def rate(self) -> Fraction | None:
        """Average frames per second as the container says, None if it says nothing usable."""
        average, guessed = self.stream.average_rate, self.stream.guessed_rate
        # A raw stream has no clock; the demuxer's "average" is then its default of 25.
        first, second = (guessed, average) if self.stream.start_time is None else (average, guessed)
        return next((rate for rate in (first, second) if rate is not None and rate > 0), None)

    @property
    def duration_s(self) -> float | None:
        """Length as the container says it."""
        if self.stream.duration:
            return float(self.stream.duration * self.time_base)
        if self._container.duration:
            return self._container.duration / 1_000_000
        return None

    def frames(self) -> Iterator[VideoFrame]:
        """All frames, in display order.

        Raises:
            VideoError: At the first sign of damage, after looking whether the file just ends there.
        """
        packet: Packet[VideoStream] | None
        for packet in self._next_packets():
            # Theora repeats a picture by an empty packet; PyAV ends with one.
            if packet.size:
                self._num_packets += 1
                yield from self._decode(packet)
            self._progress()
        yield from self._decode(None)
        self._check_ending()

    def _next_packets(self) -> Iterator[Packet[VideoStream]]:
        try:
            yield from self._packets
        except (av.error.FFmpegError, MemoryError) as error:
            if isinstance(error, MemoryError):
                raise
            raise self._fault(None, [], str(error)) from error

    def _decode(self, packet: Packet[VideoStream] | None) -> Iterator[VideoFrame]:
        if packet is not None and packet.is_keyframe and not self._seen_key:
            self._seen_key, self._key_pts = True, packet.pts
        problem: Exception | None = None
        frames: list[VideoFrame] = []
        try:
            frames = self.stream.codec_context.decode(packet)
        except av.error.EOFError:
            pass
        except av.error.FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            problem = error
        lines = self._log.drain()
        said = reason_in_log(lines)
        if said is not None:
            raise self._fault(packet, lines, said[1])
        errors = self._errors(lines)
        if problem is not None or errors:
            detail = errors[0].text if errors else str(problem)
            if not self._is_leading(packet):
                raise self._fault(packet, lines, detail)
            self.num_undecodable += problem is not None
            self._leading_error = self._leading_error or detail
        for frame in frames:
            yield from self._checked(frame, packet, lines)

    def _checked(
        self, frame: VideoFrame, packet: Packet[VideoStream] | None, lines: list[LogLine]
    ) -> Iterator[VideoFrame]:
        if frame.is_corrupt:
            if not self._is_leading(frame):
                raise self._fault(packet, lines, "a frame was only partly decoded")
            self.num_undecodable += 1
            return
        num_pixels = frame.width * frame.height
        if num_pixels > self._limits.max_pixels:
            detail = (
                f"{frame.width} x {frame.height}, the limit is {self._limits.max_pixels} pixels"
            )
            raise VideoError(FailureReason.TOO_LARGE, FailureStage.DECODE, detail)
        if self.num_frames >= self._limits.max_frames:
            detail = f"more than {self._limits.max_frames} frames"
            raise VideoError(FailureReason.TOO_LARGE, FailureStage.DECODE, detail)
        self.num_frames += 1
        yield frame

    def _errors(self, lines: list[LogLine]) -> list[LogLine]:
        """Errors of this stream's demuxer, parser and decoder; broken audio is none of ours."""
        codec = self.stream.codec_context.codec
        voices = (self.container_name, codec.name, codec.canonical_name)
        return [
            line for line in lines if line.is_error and line.name in voices and not harmless(line)
        ]

    def _is_leading(self, item: Packet[VideoStream] | VideoFrame | None) -> bool:
        """Whether it belongs before the first keyframe, in the file or on the screen."""
        if not self._seen_key:
            # Some streams mark no keyframe at all.
            return self.num_frames == 0
        if item is None or item.pts is None or self._key_pts is None:
            return False
        return item.pts < self._key_pts

    def _fault(
        self, packet: Packet[VideoStream] | None, lines: list[LogLine], detail: str
    ) -> VideoError:
        """What it is called: a file that goes on is damaged, one that stops is truncated."""
        at_end = packet is None or self._ends_within(2)
        self._raise_read_error()
        said = reason_in_log(lines + self._log.drain())
        if said is None and at_end:
            sized = not _SIZED.isdisjoint(self.container_name.split(","))
            cut = not sized or (packet is not None and packet.is_corrupt)
            ending = "ends inside a packet" if cut else self._early_ending()
            said = (FailureReason.TRUNCATED, f"{ending}; {detail}") if ending else None
        if said is None:
            errors = self._errors(lines)
            misread = bool(errors) and errors[0].name == self.container_name
            reason = FailureReason.CORRUPT_CONTAINER if misread else self._corruption()
            said = reason, detail
        return VideoError(said[0], FailureStage.DECODE, said[1])

    def _corruption(self) -> FailureReason:
        context = self.stream.codec_context
        if context.width * context.height * _LEAST_BYTES > self._limits.memory_mb << 20:
            # FFmpeg's decoders report some failed allocations as broken data.
            return FailureReason.OUT_OF_MEMORY
        broken = self.num_frames == 0 and misconfigured(self._opening)
        return FailureReason.CORRUPT_CONTAINER if broken else FailureReason.CORRUPT_STREAM

    def _raise_read_error(self) -> None:
        # A store that broke off is not a damaged file.
        if self._source.file.error is not None:
            raise self._source.file.error

    def _ends_within(self, num_packets: int) -> bool:
        try:
            rest = (packet for packet in self._packets if packet.size)
            return len(list(islice(rest, num_packets))) < num_packets
        except av.error.FFmpegError:
            return True

    def _early_ending(self) -> str | None:
        return early_ending(
            self._source.file,
            container=self.container_name,
            num_packets=self._num_packets,
            num_indexed=self.stream.frames,
            cheap_seeks=self._source.cheap_seeks,
        )

    def _check_ending(self) -> None:
        """After the last frame: did the file say that something is missing?"""
        self._raise_read_error()
        lines = self._log.drain()
        # A short file is read to its end while it is probed.
        early = [line for line in self._opening if line.name == self.container_name]
        said = reason_in_log(lines) or reason_in_log(early)
        ending = self._early_ending() if said is None else None
        if said is not None or ending is not None:
            reason, detail = said or (FailureReason.TRUNCATED, ending or "")
            raise VideoError(reason, FailureStage.DECODE, detail)
        errors = self._errors(early + lines)
        if errors and self.num_frames:
            reason, detail = FailureReason.CORRUPT_CONTAINER, errors[0].text
            raise VideoError(reason, FailureStage.DECODE, detail)
        if self.num_frames == 0:
            raise self._nothing()
        if self.num_frames == 1 and self.container_name in _STILL_CONTAINERS:
            detail = f"a still image ({self.container_name} with one frame)"
            raise VideoError(FailureReason.NOT_A_VIDEO, FailureStage.DECODE, detail)

    def _nothing(self) -> VideoError:
        if self.num_undecodable:
            detail = f"none of {self._num_packets} packets can be decoded: {self._leading_error}"
            return VideoError(self._corruption(), FailureStage.DECODE, detail)
        detail = "the video stream holds no picture"
        return VideoError(FailureReason.TOO_SHORT, FailureStage.DECODE, detail)
