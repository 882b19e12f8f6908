"""What goes into the decoder and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.config import DecodeLimits, SpaceConfig, WindowConfig
from schemas.failures import Failure, FailureReason, FailureStage
from schemas.ids import WINDOWS_PER_UNIT
from schemas.windows import WindowSpan

__all__ = [
    "DecodeError",
    "DecodeRequest",
    "DecodeSummary",
    "DecodedWindow",
    "Patch",
    "Segment",
    "failure_from_json",
    "failure_to_json",
    "request_from_json",
    "request_to_json",
    "summary_from_json",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A few consecutive windows from somewhere in a video, chosen without knowing its length.

    Where it lies follows from the length that the container says. Frames before it are decoded, but
    not scaled; decoding stops behind it, so damage further on stays unnoticed. A container that
    says no length is cut at its beginning; one that says too great a length may give no window.

    Attributes:
        share: In [0, 1): 0 for the first windows, towards 1 for the last ones.
        num_windows: How many at most, >= 1.
    """

    share: float
    num_windows: int

    def windows(self, num_frames: int, frames_per_step: int) -> range:
        """Indices on the video's window grid, if the video has ``num_frames`` frames."""
        last = max(num_frames // frames_per_step - self.num_windows, 0)
        first = int(self.share * (last + 1))
        return range(first, first + self.num_windows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """A square cut out of the source and not scaled, instead of the whole picture made small.

    Attributes:
        side: Rows and columns of the result, and rows of the source; a source that has less gives
            its largest square, enlarged.
        across: Where it lies, in [0, 1): from the first to the last place that is possible.
        down: The same for rows, as the picture is coded.
    """

    side: int
    across: float
    down: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeRequest:
    """One video, and how to cut it.

    Attributes:
        url: An absolute path (undecodable bytes as surrogate escapes) or a URL that fsspec knows.
        storage_options: For fsspec; must be JSON. Reaches the decoding process through a pipe,
            never through its command line or environment.
        size: Bytes as planned; another size found is SOURCE_CHANGED. None: nobody knows.
        window: How it is cut in time.
        space: How frames are cut and scaled.
        limits: What it may cost.
        skip_units: Work units (16 windows each) that nobody needs: decoded past without scaling.
        segment: Only these windows of those; None: to the end.
        patch: Cut this out of each frame, and pay no heed to ``space``.
    """

    url: str
    # Kept out of reprs, which end in logs: options may hold credentials.
    storage_options: Mapping[str, Any] = field(repr=False)
    size: int | None
    window: WindowConfig
    space: SpaceConfig
    limits: DecodeLimits
    skip_units: frozenset[int] = frozenset()
    segment: Segment | None = None
    patch: Patch | None = None

    def wants(self, window_index: int) -> bool:
        """Whether this window is to be given out."""
        return window_index // WINDOWS_PER_UNIT not in self.skip_units


@dataclass(slots=True)
class DecodedWindow:
    """One window, ready for the network.

    Attributes:
        span: Where it lies; ``span.num_frames`` frames have content.
        frames_THWC: RGB, uint8 [window.frames, height, width, 3], owned by the receiver; a short
            tail repeats its last frame.
    """

    span: WindowSpan
    frames_THWC: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeSummary:
    """What decoding a video came to.

    Attributes:
        num_frames_decoded: Source frames decoded.
        num_frames_dropped: Frames that no window holds although they are on the timeline: those
            of a dropped tail, and undecodable ones before the first keyframe.
        num_windows: Windows found, with those of skipped units.
        num_starts: Decoding processes it took; more than 1 if one died.
        notes: Liberties taken, for a person to read ("rotated by 45 degrees, shown by 0").
    """

    num_frames_decoded: int = 0
    num_frames_dropped: int = 0
    num_windows: int = 0
    num_starts: int = 1
    notes: tuple[str, ...] = ()


class DecodeError(Exception):
    """A video cannot be decoded whole; windows given out before must be thrown away.

    Survives pickling.

    Attributes:
        failure: Why, for the quarantine.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure

    def __str__(self) -> str:
        return f"{self.failure.reason} ({self.failure.stage}): {self.failure.detail}"


def request_to_json(request: DecodeRequest, *, first_window: int) -> dict[str, Any]:
    """A request as the decoding process reads it; windows before ``first_window`` are not sent."""
    return {
        "url": request.url,
        "storage_options": dict(request.storage_options),
        "size": request.size,
        "window": request.window.model_dump(),
        "space": request.space.model_dump(),
        "limits": request.limits.model_dump(),
        "skip_units": sorted(request.skip_units),
        "segment": asdict(request.segment) if request.segment else None,
        "patch": asdict(request.patch) if request.patch else None,
        "first_window": first_window,
    }


def request_from_json(document: Mapping[str, Any]) -> tuple[DecodeRequest, int]:
    """Undo `request_to_json`."""
    request = DecodeRequest(
        url=document["url"],
        storage_options=document["storage_options"],
        size=document["size"],
        window=WindowConfig(**document["window"]),
        space=SpaceConfig(**document["space"]),
        limits=DecodeLimits(**document["limits"]),
        skip_units=frozenset(document["skip_units"]),
        segment=Segment(**document["segment"]) if document["segment"] else None,
        patch=Patch(**document["patch"]) if document["patch"] else None,
    )
    return request, document["first_window"]


def failure_to_json(failure: Failure) -> dict[str, Any]:
    """A failure as a message, and as it is stored in receipts."""
    return {
        "reason": failure.reason.value,
        "stage": failure.stage.value,
        "detail": failure.detail,
        "num_frames": failure.num_frames,
    }


def failure_from_json(document: Mapping[str, Any]) -> Failure:
    """Undo `failure_to_json`."""
    return Failure(
        reason=FailureReason(document["reason"]),
        stage=FailureStage(document["stage"]),
        detail=document["detail"],
        num_frames=document["num_frames"],
    )


def summary_from_json(document: Mapping[str, Any], *, num_starts: int) -> DecodeSummary:
    """A summary as the decoding process sent it; only its parent knows how often it was started."""
    return DecodeSummary(
        num_frames_decoded=document["num_frames_decoded"],
        num_frames_dropped=document["num_frames_dropped"],
        num_windows=document["num_windows"],
        num_starts=num_starts,
        notes=tuple(document["notes"]),
    )
