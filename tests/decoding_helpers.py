"""Requests with small pictures, and decoding in this process, for the tests of the decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.config import DecodeLimits, SpaceConfig, WindowConfig
from pipelines.damage import FFmpegLog
from pipelines.decode import DecodeError, DecodeRequest, Patch, Segment
from pipelines.decoding import VideoDecoding
from pipelines.windowing import CutWindow
from schemas.failures import Failure


def request_for(
    path: Path | str,
    *,
    size: int | None = None,
    side: int = 64,
    mode: str = "crop",
    skip_units: frozenset[int] = frozenset(),
    limits: dict[str, Any] | None = None,
    segment: Segment | None = None,
    patch: Patch | None = None,
    **window: Any,
) -> DecodeRequest:
    """A request for ``path``; keywords that are left over belong to the window."""
    return DecodeRequest(
        url=str(path),
        storage_options={},
        size=size,
        window=WindowConfig(**{"frames": 9, **window}),
        space=SpaceConfig.model_validate({"size": side, "mode": mode}),
        limits=DecodeLimits(**(limits or {})),
        skip_units=skip_units,
        segment=segment,
        patch=patch,
    )


def decode_here(
    request: DecodeRequest, first_window: int = 0
) -> tuple[list[CutWindow], VideoDecoding]:
    """All windows of a video, decoded in this process."""
    with FFmpegLog() as log:
        decoding = VideoDecoding(request, log=log, first_window=first_window)
        return list(decoding.windows()), decoding


def failure_here(request: DecodeRequest) -> Failure:
    """Why a video is set aside."""
    try:
        windows, _ = decode_here(request)
    except DecodeError as error:
        return error.failure
    raise AssertionError(f"{request.url} was decoded: {len(windows)} windows")


def valid_frames(windows: list[CutWindow]) -> list[npt.NDArray[np.uint8]]:
    """The frames with content of all windows, in order."""
    return [frame for w in windows for frame in w.frames_THWC[: w.span.num_frames]]
