"""Frames to an mp4 that any player shows, and to a PNG."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
import numpy.typing as npt
from av.codec.codec import Codec, UnknownCodecError
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream

__all__ = ["VideoWriter", "frame_rate", "png_bytes", "writes_h264"]

_CRF = 16
"""Visually lossless: what is seen in the file is the tokenizer's loss, not the codec's."""
_H264 = "libx264"
_MPEG4_BITS_PER_PIXEL = 0.5
_SLOWEST, _FASTEST = Fraction(1, 1001), Fraction(1000)


def frame_rate(fps: float) -> Fraction:
    """A rate that mp4 can hold; 29.97 as float32 becomes 30000/1001 again."""
    return min(max(Fraction(fps).limit_denominator(1001), _SLOWEST), _FASTEST)


def png_bytes(image_HWC: npt.NDArray[np.uint8]) -> bytes:
    """An RGB picture as PNG."""
    encoder = av.CodecContext.create("png", "w")
    encoder.height, encoder.width = image_HWC.shape[:2]
    encoder.pix_fmt = "rgb24"
    encoder.time_base = Fraction(1)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image_HWC), "rgb24")
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


class VideoWriter:
    """H.264 (MPEG-4 where FFmpeg was built without x264), yuv420p, in mp4. A context manager.

    The file appears under its name when all of it is written; after an error nothing is left.

    Args:
        path: A name ending in ``.mp4``; its folder exists.
        width: Columns, even.
        height: Rows, even.
        fps: Frames per second; frames are evenly spaced, whatever the source's timing was.
        crf: Quality of H.264; more is smaller and worse.
    """

    def __init__(self, path: Path, *, width: int, height: int, fps: float, crf: int = _CRF) -> None:
        self.path = path
        self._partial = path.with_name(f".{path.name}.partial")
        self._container = av.open(
            str(self._partial), "w", format="mp4", options={"movflags": "+faststart"}
        )
        self._stream = _stream(self._container, frame_rate(fps), crf)
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"
        # Without a tag players guess the matrix from the height; 601 is swscale's own.
        self._stream.codec_context.colorspace = Colorspace.ITU601
        self._stream.codec_context.color_range = ColorRange.MPEG
        if self._stream.codec_context.codec.name == "mpeg4":
            bits = width * height * float(frame_rate(fps)) * _MPEG4_BITS_PER_PIXEL
            self._stream.codec_context.bit_rate = int(bits)
        self.num_frames = 0
        """Frames written."""

    def write(self, frames_THWC: npt.NDArray[np.uint8]) -> None:
        """Append RGB frames."""
        for image_HWC in frames_THWC:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image_HWC), "rgb24")
            frame = frame.reformat(
                format="yuv420p",
                dst_colorspace=Colorspace.ITU601,
                dst_color_range=ColorRange.MPEG,
            )
            frame.pts = self.num_frames
            frame.time_base = 1 / Fraction(self._stream.codec_context.framerate)
            self._container.mux(self._stream.encode(frame))
            self.num_frames += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        finished = False
        try:
            if kind is None:
                self._container.mux(self._stream.encode(None))
                finished = True
        finally:
            self._container.close()
            if finished:
                self._partial.replace(self.path)
            else:
                self._partial.unlink(missing_ok=True)


def writes_h264() -> bool:
    """Whether `VideoWriter` writes what every browser plays: else it writes MPEG-4."""
    try:
        Codec(_H264, "w")
    except UnknownCodecError:
        return False
    return True


def _stream(container: Any, rate: Fraction, crf: int) -> VideoStream:  # noqa: ANN401  av.open's union
    try:
        return container.add_stream(_H264, rate=rate, options={"crf": str(crf)})
    except UnknownCodecError:
        return container.add_stream("mpeg4", rate=rate)
