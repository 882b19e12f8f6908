"""Decoded frames to small RGB: crop, scale and colour in one libavfilter graph.

Colour is explicit on both sides. swscale's own defaults are about two levels too dark and read
every untagged file as BT.601 (measured against float arithmetic); with the flags below the error
is rounding. Alpha is ignored (the stored colour is used), interlaced fields stay woven, and HDR
transfer curves are not tone-mapped: the code values pass as they are.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt
from av.filter import Graph
from av.video.frame import VideoFrame

from pipelines.damage import VideoError
from pipelines.geometry import Box
from schemas.failures import FailureReason, FailureStage

__all__ = ["RgbGraph", "chroma_grid", "frame_layout"]

_FLAGS = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"

# AVColorSpace (ISO/IEC 23091-2 matrix coefficients) to swscale's names. Absent: no fixed matrix.
_MATRIX = {
    1: "bt709",
    4: "fcc",
    5: "bt470",
    6: "smpte170m",
    7: "smpte240m",
    9: "bt2020",
    10: "bt2020",
}
_UNTAGGED = (0, 2, 3)  # RGB on a YUV format, unspecified, reserved
_FULL_RANGE = 2
_LIMITED_RANGE = 1
_HD_LINES = 720
"""Untagged video of this many lines and more is BT.709, below it BT.601: the common rule."""


def frame_layout(frame: VideoFrame) -> tuple[int, int, str, int, int]:
    """What a graph is built for; a frame with another layout needs another graph."""
    return frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range


def chroma_grid(frame: VideoFrame) -> tuple[int, int]:
    """Luma samples per chroma sample, across and down."""
    return 16 // frame.format.chroma_width(16), 16 // frame.format.chroma_height(16)


class RgbGraph:
    """Crops to ``box``, scales to ``size`` and converts to RGB, for frames of one layout.

    Args:
        frame: A frame of the layout.
        box: Part of the coded frame to keep.
        size: (width, height) of the result, in coded orientation.

    Raises:
        VideoError: UNSUPPORTED_CODEC if the colours are coded in a way without a fixed matrix.
    """

    def __init__(self, frame: VideoFrame, *, box: Box, size: tuple[int, int]) -> None:
        self.layout = frame_layout(frame)
        self._width, self._height = size
        matrix, is_full = _colour(frame)
        gray = frame.format.name.startswith("gray")
        # swscale takes all gray for full range, whatever it is told.
        self._levels = _expanded() if gray and not is_full else None
        graph = Graph()
        graph.threads = 1
        nodes = [
            graph.add(
                "buffer",
                video_size=f"{frame.width}x{frame.height}",
                pix_fmt=frame.format.name,
                # Nothing in the graph looks at time.
                time_base=str(Fraction(1, 1000)),
                pixel_aspect="1/1",
                colorspace=str(frame.colorspace),
                range=str(frame.color_range),
            ),
            graph.add("crop", f"{box.width}:{box.height}:{box.x}:{box.y}:exact=1"),
            graph.add(
                "scale",
                f"{self._width}:{self._height}:flags={_FLAGS}:in_color_matrix={matrix}"
                f":in_range={'pc' if is_full else 'tv'}:out_range=pc",
            ),
            # To planar RGB first: swscale writes it with SIMD, packed RGB of this accuracy in plain
            # C (a third of the cost of the graph at 1080p). Interleaving is exact and cheap.
            graph.add("format", "pix_fmts=gbrp"),
            graph.add("scale", f"flags={_FLAGS}"),
            graph.add("format", "pix_fmts=rgb24"),
            graph.add("buffersink"),
        ]
        graph.link_nodes(*nodes)
        graph.configure()
        # The graph must outlive its nodes, which hold it weakly.
        self._graph, self._source, self._sink = graph, nodes[0], nodes[-1]

    def convert(self, frame: VideoFrame) -> npt.NDArray[np.uint8]:
        """RGB, uint8 [height, width, 3], in coded orientation; a view that owns its memory."""
        self._source.push(frame)
        plane = self._sink.pull().planes[0]  # pyright: ignore[reportAttributeAccessIssue]
        rows = np.frombuffer(plane, np.uint8).reshape(self._height, plane.line_size)
        image_HWC = rows[:, : self._width * 3].reshape(self._height, self._width, 3)
        return image_HWC if self._levels is None else self._levels[image_HWC]


def _colour(frame: VideoFrame) -> tuple[str, bool]:
    """Name of the matrix in swscale, and whether the range is full."""
    name, full = frame.format.name, frame.color_range == _FULL_RANGE
    if frame.format.is_rgb or name == "pal8":
        return "bt709", True
    full = full or name.startswith("yuvj")
    if name.startswith("gray"):
        return "bt709", frame.color_range != _LIMITED_RANGE
    if frame.colorspace in _MATRIX:
        return _MATRIX[frame.colorspace], full
    if frame.colorspace in _UNTAGGED:
        return ("bt709" if frame.height >= _HD_LINES else "bt601"), full
    detail = f"colour matrix {frame.colorspace} of {name} has no conversion"
    raise VideoError(FailureReason.UNSUPPORTED_CODEC, FailureStage.DECODE, detail)


def _expanded() -> npt.NDArray[np.uint8]:
    """Limited-range levels (16..235) to full range."""
    levels = (np.arange(256) - 16) * (255 / 219)
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)
