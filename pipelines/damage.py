"""The one place where what PyAV, FFmpeg's log, fsspec and the system say becomes a reason.

FFmpeg conceals damage and goes on; what it concealed stands only in its log. So the log is read
after every packet, and any error line of the video's own demuxer or decoder counts as damage,
except for the few below that do not touch a pixel.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from types import TracebackType
from typing import NamedTuple

import av
import av.error
import av.logging

from schemas.failures import Failure, FailureReason, FailureStage

__all__ = [
    "FFmpegLog",
    "LogLine",
    "VideoError",
    "failure_of",
    "harmless",
    "misconfigured",
    "reason_in_log",
]

_LONGEST_DETAIL = 300

_HARMLESS = (
    # The encoder frees a reference that is not there; nothing refers to it. Common at splices.
    "mmco: unref short failure",
    # More references in use than declared: FFmpeg drops the oldest, as their encoders expect.
    "number of reference frames",
    # Requests for sample files, about features that do not change the picture.
    "Late SEI is not implemented",
    "If you want to help",
    # QuickTime chapter links; chapters are not pictures.
    "Referenced QT chapter track not found",
)
_ENDED = ("File ended prematurely", "partial file", "moov atom not found")
_TOO_LARGE = re.compile(r"Picture size \d+x\d+ (?:is invalid|exceeds)")
_NO_MEMORY = re.compile("Cannot allocate memory|get_buffer\\(\\) failed|Failed to allocate")
_NOT_A_CONTAINER = ("Format not on whitelist", "Not detecting m3u8")
_NO_CREDENTIALS = frozenset(
    {
        "NoCredentialsError",
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "ProfileNotFound",
        "TokenRetrievalError",
        "UnauthorizedSSOTokenError",
    }
)
"""Errors of botocore, by name: it is not imported where no video comes from S3."""
_MISCONFIGURED = ("Error decoding the extradata", "Invalid extradata", "avcC")


class LogLine(NamedTuple):
    """One message of FFmpeg: its level (16 = error, 24 = warning), who says it, and what."""

    level: int
    name: str
    text: str

    @property
    def is_error(self) -> bool:
        """Error or worse (FFmpeg's levels count downwards)."""
        return self.level <= av.logging.ERROR


class VideoError(Exception):
    """What is wrong with a video, found by ourselves. Costs that video, nothing else."""

    def __init__(self, reason: FailureReason, stage: FailureStage, detail: str) -> None:
        super().__init__(reason, stage, detail)
        self.reason = reason
        self.stage = stage
        self.detail = detail


class FFmpegLog:
    """Catches FFmpeg's warnings and errors, of all threads, while it is entered.

    FFmpeg has one log per process, so one of these may be entered at a time.
    """

    def __init__(self) -> None:
        self._capture = av.logging.Capture(local=False)
        self._lines: list[tuple[int, str, str]] = []

    def __enter__(self) -> FFmpegLog:
        self._before = av.logging.get_level(), av.logging.get_skip_repeated()
        av.logging.set_level(av.logging.WARNING)
        # Else the first message of a video is swallowed if it equals the last of the one before.
        av.logging.set_skip_repeated(False)
        self._lines = self._capture.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._capture.__exit__(None, None, None)  # pyright: ignore[reportArgumentType]
        av.logging.set_level(self._before[0])
        av.logging.set_skip_repeated(self._before[1])

    def drain(self) -> list[LogLine]:
        """What was said since the last call."""
        if not self._lines:
            return []
        lines = [LogLine(level, name, text.strip()) for level, name, text in self._lines]
        self._lines.clear()
        return lines


def harmless(line: LogLine) -> bool:
    """Whether an error line is known not to touch a pixel."""
    return any(pattern in line.text for pattern in _HARMLESS)


def misconfigured(lines: Iterable[LogLine]) -> bool:
    """Whether the decoder could not read its configuration record, which lies in the container."""
    return any(pattern in line.text for line in lines for pattern in _MISCONFIGURED)


def reason_in_log(lines: Iterable[LogLine]) -> tuple[FailureReason, str] | None:
    """The reason that the log gives in so many words, if it does, and the line that says so."""
    for line in lines:
        if _TOO_LARGE.search(line.text):
            return FailureReason.TOO_LARGE, line.text
        if line.is_error and _NO_MEMORY.search(line.text):
            return FailureReason.OUT_OF_MEMORY, line.text
        if any(pattern in line.text for pattern in _ENDED):
            return FailureReason.TRUNCATED, line.text
        if any(pattern in line.text for pattern in _NOT_A_CONTAINER):
            return FailureReason.NOT_A_VIDEO, f"recognised as {line.name or 'a playlist'}"
    return None


def failure_of(
    error: BaseException,
    *,
    stage: FailureStage,
    num_frames: int = 0,
    lines: Iterable[LogLine] = (),
) -> Failure:
    """Any error met while a video was opened or decoded, as a reason.

    Args:
        error: What was raised.
        stage: Where.
        num_frames: Frames decoded before.
        lines: FFmpeg's log since the last packet.
    """
    lines = list(lines)
    if isinstance(error, VideoError):
        return _failure(error.reason, error.stage, error.detail, num_frames)
    if isinstance(error, av.error.FFmpegError) and not isinstance(error, MemoryError):
        reason, detail = _ffmpeg_reason(error, stage, lines)
    else:
        reason, detail = _system_reason(error), f"{type(error).__name__}: {error}"
    return _failure(reason, stage, detail, num_frames)


def _failure(reason: FailureReason, stage: FailureStage, detail: str, num_frames: int) -> Failure:
    line = " ".join(detail.split())
    # A signed URL carries its credentials in the query.
    line = re.sub(r"\?[^\s'\"]+", "?...", line)
    return Failure(reason=reason, stage=stage, detail=line[:_LONGEST_DETAIL], num_frames=num_frames)


def _ffmpeg_reason(
    error: av.error.FFmpegError, stage: FailureStage, lines: list[LogLine]
) -> tuple[FailureReason, str]:
    said = reason_in_log(lines)
    if said is not None:
        return said
    errors = [line for line in lines if line.is_error and not harmless(line)]
    detail = f"{errors[0].name}: {errors[0].text}" if errors else error.strerror or str(error)
    if isinstance(error, EOFError):
        return FailureReason.TRUNCATED, "ends inside its header"
    if isinstance(
        error,
        av.error.PatchWelcomeError | av.error.DecoderNotFoundError | av.error.ExperimentalError,
    ):
        return FailureReason.UNSUPPORTED_CODEC, detail
    if stage == FailureStage.DECODE:
        return FailureReason.CORRUPT_STREAM, detail
    if not any(line.name for line in errors):
        return FailureReason.NOT_A_VIDEO, "no demuxer recognises the bytes"
    return FailureReason.CORRUPT_CONTAINER, detail


def _system_reason(error: BaseException) -> FailureReason:
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return FailureReason.OUT_OF_MEMORY
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return FailureReason.NOT_FOUND
    if isinstance(error, IsADirectoryError):
        return FailureReason.NOT_A_VIDEO
    if isinstance(error, OSError) and error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
        return FailureReason.NOT_FOUND
    library = type(error).__module__.partition(".")[0]
    if isinstance(error, OSError) or library in ("botocore", "aiohttp", "s3fs"):
        return _store_reason(error)
    return FailureReason.INTERNAL


def _store_reason(error: BaseException) -> FailureReason:
    """What a store or its client says, after the client's own retries."""
    if isinstance(error, PermissionError) or getattr(error, "status", None) in (401, 403, 407):
        return FailureReason.ACCESS_DENIED
    if getattr(error, "status", None) in (404, 410):
        return FailureReason.NOT_FOUND
    if type(error).__name__ in _NO_CREDENTIALS:
        return FailureReason.ACCESS_DENIED
    return FailureReason.SOURCE_UNAVAILABLE
