"""What is known of a window before any budget: where it lies, and what the tokenizer said of it.

Shapes: t, h, w = latent frames, rows, columns of one window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["StreamFacts", "WindowAnalysis", "WindowSpan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFacts:
    """A video stream as it was coded, and as the network sees it.

    Attributes:
        codec: FFmpeg's name of the codec: ``h264``.
        container: FFmpeg's name(s) of the demuxer: ``mov,mp4,m4a,3gp,3g2,mj2``.
        pix_fmt: Pixel format as coded: ``yuv420p``.
        source_width: Columns as coded, before rotation and pixel aspect.
        source_height: Rows as coded.
        width: Columns the network sees.
        height: Rows the network sees.
        rotation: Degrees, as the container says it should be shown.
        source_fps: Average frame rate of the source in 1/s; None if it has none.
        fps: Rate of the sampled frames in 1/s: the asked one, else the source's average.
        duration_s: Length as the container says it; None if it does not say.

    Raises:
        ValueError: If a size or a rate is not positive and finite.
    """

    codec: str
    container: str
    pix_fmt: str
    source_width: int
    source_height: int
    width: int
    height: int
    rotation: int
    source_fps: float | None
    fps: float
    duration_s: float | None

    def __post_init__(self) -> None:
        for name in ("source_width", "source_height", "width", "height"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        for name, rate in (("fps", self.fps), ("source_fps", self.source_fps)):
            if rate is not None and not (math.isfinite(rate) and rate > 0):
                raise ValueError(f"{name} must be positive and finite, not {rate}")
        if self.duration_s is not None and not math.isfinite(self.duration_s):
            raise ValueError(f"duration_s must be finite, not {self.duration_s}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSpan:
    """Which frames of its video a window holds.

    Attributes:
        window_index: Position on the video's window grid, from 0.
        start_frame: First sampled frame, from 0 (sampled: after resampling to ``fps``).
        num_frames: Frames with content, >= 1; padding of the last window is not counted.
        start_time_s: Presentation time of the first frame, on the source timeline.
        end_time_s: Presentation time at which the next frame begins, of the video's last frame that
            at which it ends; the span is half-open.
    """

    window_index: int
    start_frame: int
    num_frames: int
    start_time_s: float
    end_time_s: float

    def __post_init__(self) -> None:
        if self.window_index < 0 or self.start_frame < 0 or self.num_frames < 1:
            raise ValueError(f"not a span of frames: {self}")
        if not (math.isfinite(self.start_time_s) and math.isfinite(self.end_time_s)):
            raise ValueError(f"times must be finite: {self}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WindowAnalysis:
    """Everything pass two needs of a window: all its codes, and what each of them is worth.

    Attributes:
        span: Where it lies.
        codes: FSQ indices, uint16 [t, h, w], 0 .. 63999; only the latent frames with real content.
        information: Mean |x - y| on pixels in [-1, 1] per token, float16 [t, h, w], >= 0. Rounded
            once, here; every selection uses these values, so reusing and recomputing agree.

    Raises:
        ValueError: If dtypes or shapes are others.
    """

    span: WindowSpan
    codes: npt.NDArray[np.uint16]
    information: npt.NDArray[np.float16]

    def __post_init__(self) -> None:
        if self.codes.dtype != np.uint16 or self.information.dtype != np.float16:
            raise ValueError(
                f"codes must be uint16 and information float16, not {self.codes.dtype} and "
                f"{self.information.dtype}"
            )
        if (
            self.codes.ndim != 3
            or self.codes.shape != self.information.shape
            or not self.codes.size
        ):
            raise ValueError(
                f"codes and information must have one non-empty shape [t, h, w], not "
                f"{self.codes.shape} and {self.information.shape}"
            )
