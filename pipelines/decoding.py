"""A video becomes windows: bytes, frames, times, sampling, cutting, in one process.

```
video_source ──▶ video ──▶ timeline ──▶ windowing ◀── rgb (geometry)
   bytes        frames   times, rate     windows       pixels, only of frames that a window holds
```
Used by the decoding process (`decode_worker`), and directly where nothing hostile is expected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import cast

import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame

from pipelines.damage import FFmpegLog, VideoError, failure_of
from pipelines.decode_types import DecodeError, DecodeRequest, DecodeSummary
from pipelines.geometry import Box, Orientation, crop_box, output_size, patch_box, pixel_aspect
from pipelines.rgb import RgbGraph, chroma_grid, frame_layout
from pipelines.timeline import FrameClock, Timed, resample
from pipelines.video import VideoReader
from pipelines.video_source import Waiting, open_bytes
from pipelines.windowing import CutWindow, WindowCutter
from schemas.failures import FailureReason, FailureStage
from schemas.windows import StreamFacts

__all__ = ["Buffers", "VideoDecoding"]

Shape = tuple[int, int, int, int]
Buffers = Callable[[Shape], npt.NDArray[np.uint8]]
"""Gives a writable uint8 array [T, H, W, 3] for one window; may block until one is free."""


class VideoDecoding:
    """Decodes one video; iterate `windows` once, then read `facts` and `summary`.

    Args:
        request: What to decode.
        log: FFmpeg's log, entered.
        buffers: Where windows are written to.
        progress: Called after each packet read.
        waiting: Told when a store is waited for; see `video_source.open_bytes`.
        first_window: Windows before it are counted, not made.
    """

    def __init__(
        self,
        request: DecodeRequest,
        *,
        log: FFmpegLog,
        buffers: Buffers = lambda shape: np.empty(shape, np.uint8),
        progress: Callable[[], None] = lambda: None,
        waiting: Waiting = lambda _: None,
        first_window: int = 0,
    ) -> None:
        self._request = request
        self._log = log
        self._buffers = buffers
        self._progress = progress
        self._waiting = waiting
        self._first_window = first_window
        self._segment: range | None = None
        self._reader: VideoReader | None = None
        self._scaler: _Scaler | None = None
        self._cutter = WindowCutter(request.window, wanted=self._wants, new_buffer=self._new_buffer)
        self.facts: StreamFacts | None = None
        """Known with the first frame."""

    @property
    def summary(self) -> DecodeSummary:
        """What has been done so far; final when `windows` has ended."""
        reader = self._reader
        return DecodeSummary(
            num_frames_decoded=reader.num_frames if reader else 0,
            num_frames_dropped=self._cutter.num_dropped + (reader.num_undecodable if reader else 0),
            num_windows=self._cutter.num_windows,
            notes=tuple(self._scaler.notes) if self._scaler else (),
        )

    def windows(self) -> Iterator[CutWindow]:
        """Wanted windows, in order.

        Raises:
            DecodeError: The video cannot be decoded whole.
        """
        try:
            yield from self._windows()
        except Exception as error:
            # The translation point: whatever a hostile file makes a library raise gets a reason.
            stage = FailureStage.OPEN if self._reader is None else FailureStage.DECODE
            num_frames = self._reader.num_frames if self._reader else 0
            failure = failure_of(error, stage=stage, num_frames=num_frames, lines=self._log.drain())
            raise DecodeError(failure) from error

    def _windows(self) -> Iterator[CutWindow]:
        request = self._request
        self._log.drain()
        source = open_bytes(
            request.url,
            storage_options=request.storage_options,
            size=request.size,
            max_bytes=request.limits.max_bytes,
            waiting=self._waiting,
        )
        with (
            closing(source.file),
            VideoReader(
                source, limits=request.limits, log=self._log, progress=self._progress
            ) as reader,
        ):
            self._reader = reader
            samples = resample(
                self._timed(reader), time_base=reader.time_base, fps=request.window.fps
            )
            for sample in samples:
                if self._cutter.num_samples >= request.limits.max_frames:
                    detail = f"more than {request.limits.max_frames} frames at the asked rate"
                    raise VideoError(FailureReason.TOO_LARGE, FailureStage.DECODE, detail)
                window = self._cutter.add(sample)
                if window is not None:
                    yield window
                if self._segment is not None and self._cutter.num_windows >= self._segment.stop:
                    return
            window = self._cutter.finish()
            if window is not None:
                yield window
        if self._cutter.num_windows == 0:
            detail = f"{self._cutter.num_samples} frames, a window has {request.window.frames}"
            raise VideoError(FailureReason.TOO_SHORT, FailureStage.DECODE, detail)

    def _timed(self, reader: VideoReader) -> Iterator[Timed[_Picture]]:
        clock = FrameClock(time_base=reader.time_base, rate=reader.rate)
        for frame in reader.frames():
            if self._scaler is None:
                self._scaler = _Scaler(frame, reader=reader, request=self._request)
                self.facts = self._scaler.facts()
                self._segment = self._place_segment(self.facts)
            start, end = clock.place(pts=frame.pts, dts=frame.dts, duration=frame.duration)
            yield Timed(start, end, _Picture(frame, self._scaler))

    def _wants(self, index: int) -> bool:
        inside = self._segment is None or index in self._segment
        return inside and index >= self._first_window and self._request.wants(index)

    def _place_segment(self, facts: StreamFacts) -> range | None:
        window, segment = self._request.window, self._request.segment
        if segment is None:
            return None
        num_frames = round((facts.duration_s or 0) * facts.fps)
        return segment.windows(num_frames, window.frames - window.overlap)

    def _new_buffer(self) -> npt.NDArray[np.uint8]:
        assert self._scaler is not None, "a window before the first frame"
        width, height = self._scaler.output
        return self._buffers((self._request.window.frames, height, width, 3))


class _Picture:
    """A frame that is scaled when asked, once, and then forgotten at full size."""

    __slots__ = ("_frame", "_pixels", "_scaler")

    def __init__(self, frame: VideoFrame, scaler: _Scaler) -> None:
        self._frame: VideoFrame | None = frame
        self._scaler = scaler
        self._pixels: npt.NDArray[np.uint8] | None = None

    def pixels(self) -> npt.NDArray[np.uint8]:
        if self._pixels is None:
            assert self._frame is not None
            self._pixels = self._scaler.scale(self._frame)
            self._frame = None
        return self._pixels


class _Scaler:
    """Frames to pictures of one size, fixed by the first frame; the graph follows each change."""

    def __init__(self, frame: VideoFrame, *, reader: VideoReader, request: DecodeRequest) -> None:
        self._reader = reader
        self._request = request
        self._first = frame_layout(frame)
        self._rotation = frame.rotation
        self._orientation = _orientation(frame)
        coded = reader.stream.codec_context.sample_aspect_ratio
        self._aspect = pixel_aspect(reader.stream.sample_aspect_ratio)
        # The stream may change its pixel aspect midway; the container's word stands for the file.
        self._follow_stream = pixel_aspect(coded) == self._aspect
        self.output = self._output(frame)
        self.notes: list[str] = []
        if self.output[0] * self.output[1] > request.limits.max_pixels:
            detail = f"would be scaled to {self.output[0]} x {self.output[1]}"
            raise VideoError(FailureReason.TOO_LARGE, FailureStage.DECODE, detail)
        if not self._orientation.exact:
            self.notes.append(f"rotation by {self._rotation} degrees rounded to a right angle")
        self._graph = self._build(frame)

    def scale(self, frame: VideoFrame) -> npt.NDArray[np.uint8]:
        """RGB, uint8 [H, W, 3], turned as it should be shown."""
        if frame_layout(frame) != self._graph.layout:
            note = "frame size, format or colour changes midway"
            if note not in self.notes:
                self.notes.append(note)
            self._graph = self._build(frame)
        return self._orientation.apply(self._graph.convert(frame))

    def facts(self) -> StreamFacts:
        """The stream as it is coded and as it is seen, by its first frame."""
        reader, rate = self._reader, self._reader.rate
        source_fps = float(rate) if rate is not None else None
        codec = reader.stream.codec_context.codec
        return StreamFacts(
            codec=codec.canonical_name or codec.name,
            container=reader.container_name,
            pix_fmt=self._first[2],
            source_width=self._first[0],
            source_height=self._first[1],
            width=self.output[0],
            height=self.output[1],
            rotation=self._rotation % 360,
            source_fps=source_fps,
            fps=self._request.window.fps or source_fps or 25.0,
            duration_s=reader.duration_s,
        )

    def _output(self, frame: VideoFrame) -> tuple[int, int]:
        if self._request.patch is not None:
            return self._request.patch.side, self._request.patch.side
        return output_size(
            frame.width,
            frame.height,
            aspect=self._aspect,
            orientation=self._orientation,
            space=self._request.space,
        )

    def _build(self, frame: VideoFrame) -> RgbGraph:
        box = self._box(frame)
        return RgbGraph(frame, box=box, size=self._orientation.turn(self.output))

    def _box(self, frame: VideoFrame) -> Box:
        aspect, patch = self._aspect, self._request.patch
        if self._follow_stream:
            aspect = pixel_aspect(self._reader.stream.codec_context.sample_aspect_ratio)
        if patch is not None:
            return patch_box(
                frame.width,
                frame.height,
                aspect=aspect,
                side=patch.side,
                place=(patch.across, patch.down),
                chroma_grid=chroma_grid(frame),
            )
        return crop_box(
            frame.width,
            frame.height,
            aspect=aspect,
            orientation=self._orientation,
            output=self.output,
            chroma_grid=chroma_grid(frame),
        )


def _orientation(frame: VideoFrame) -> Orientation:
    matrix = frame.side_data.get(cast("str", Type.DISPLAYMATRIX))
    if matrix is None:
        return Orientation()
    numbers = np.frombuffer(memoryview(matrix), np.int32)
    return Orientation.from_display_matrix([int(number) for number in numbers])
