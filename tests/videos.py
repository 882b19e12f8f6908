"""Tiny real videos, made with PyAV: each frame carries its number as bright and dark squares."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.video.stream import VideoStream

NUM_BITS = 8
SIDE = 64
DARK, BRIGHT = 40, 210


def numbered_frame(number: int, *, width: int = SIDE, height: int = SIDE) -> npt.NDArray[np.uint8]:
    """RGB [height, width, 3]: the bits of ``number`` in the top half, its complement below."""
    bits = [number >> bit & 1 for bit in range(NUM_BITS)]
    small = np.array([bits, [1 - bit for bit in bits]], np.uint8)
    rows = np.arange(height) * 2 // height
    columns = np.arange(width) * NUM_BITS // width
    gray = np.where(small[rows][:, columns] == 1, BRIGHT, DARK).astype(np.uint8)
    return np.repeat(gray[:, :, None], 3, axis=2)


def read_number(frame_HWC: npt.NDArray[np.uint8]) -> int:
    """The number in a frame, from the middle of each square."""
    height, width, _ = frame_HWC.shape
    number = 0
    for bit in range(NUM_BITS):
        x = (2 * bit + 1) * width // (2 * NUM_BITS)
        top, bottom = (int(frame_HWC[y, x, 1]) for y in (height // 4, 3 * height // 4))
        assert abs(top - bottom) > 80, f"no bit to be read: {top}, {bottom}"
        number |= int(top > bottom) << bit
    return number


def read_numbers(frames_THWC: npt.NDArray[np.uint8]) -> list[int]:
    """`read_number` of each frame."""
    return [read_number(frame_HWC) for frame_HWC in frames_THWC]


def write_video(
    path: Path,
    frames: Sequence[npt.NDArray[np.uint8]] | int,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rate: Fraction | int = 30,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    rotation: int = 0,
    aspect: Fraction | None = None,
    codec_options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    matrix: tuple[int, int] | None = None,
) -> Path:
    """Encode frames.

    Args:
        path: Its extension decides the container.
        frames: RGB [height, width, 3] each, or how many numbered ones.
        codec: Encoder.
        pix_fmt: As coded.
        rate: Frames per second.
        pts: Times in ticks of ``time_base``; None: evenly.
        time_base: Seconds per tick; needed with ``pts``.
        rotation: Display rotation, degrees counter-clockwise.
        aspect: Width over height of a pixel.
        codec_options: For the encoder.
        container_options: For the muxer.
        matrix: Colour matrix and range (AVColorSpace, AVColorRange) to convert with and to tag.
    """
    images = [numbered_frame(n) for n in range(frames)] if isinstance(frames, int) else frames
    options = {"preset": "ultrafast", "crf": "12", "g": "12"} if codec == "libx264" else {}
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(
            codec, rate=rate, options={**options, **(codec_options or {})}
        )
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.thread_count = 1
        if time_base is not None:
            stream.codec_context.time_base = time_base
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if matrix is not None:
            stream.codec_context.colorspace, stream.codec_context.color_range = matrix
        if rotation:
            stream.set_display_rotation(rotation)
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
            if pix_fmt != "rgb24":
                extra = {} if matrix is None else _destination(matrix)
                frame = frame.reformat(format=pix_fmt, interpolation="BICUBIC", **extra)
            frame.pts = index if pts is None else pts[index]
            frame.time_base = time_base or 1 / Fraction(rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _destination(matrix: tuple[int, int]) -> dict[str, int]:
    return {"dst_colorspace": matrix[0], "dst_color_range": matrix[1]}


def decoded_rgb(path: Path) -> tuple[np.ndarray, Fraction | None]:
    """All frames of a file, and its frame rate."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return np.stack(frames), stream.average_rate
