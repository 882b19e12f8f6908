"""Why a video was set aside: the closed vocabulary of the quarantine.

The values are persisted (receipts, quarantine rows): names are only ever added.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Failure", "FailureReason", "FailureStage"]


class FailureReason(StrEnum):
    """What is wrong, in the words a person would use."""

    NOT_FOUND = "NOT_FOUND"
    """The object was listed but is not there (any more), or a link leads nowhere."""
    ACCESS_DENIED = "ACCESS_DENIED"
    """The store refused to hand the object out: permissions, or credentials that are not there."""
    SOURCE_UNAVAILABLE = "SOURCE_UNAVAILABLE"
    """The store could not be reached, failed (5xx) or said nothing, retries included: nothing is
    known against the video. ``--retry-failed --reason SOURCE_UNAVAILABLE`` reads it again."""
    SOURCE_CHANGED = "SOURCE_CHANGED"
    """The object is not the version that was planned (other ETag, size or mtime)."""
    EMPTY_FILE = "EMPTY_FILE"
    """Zero bytes."""
    NOT_A_VIDEO = "NOT_A_VIDEO"
    """No demuxer recognises the bytes: text, HTML, a Git LFS pointer, a bare image, noise."""
    NO_VIDEO_STREAM = "NO_VIDEO_STREAM"
    """A valid media file without moving pictures (audio, or audio with cover art)."""
    CORRUPT_CONTAINER = "CORRUPT_CONTAINER"
    """The container's own structure is damaged."""
    CORRUPT_STREAM = "CORRUPT_STREAM"
    """The container is readable, the coded pictures are damaged."""
    TRUNCATED = "TRUNCATED"
    """The file ends before its content does."""
    UNSUPPORTED_CODEC = "UNSUPPORTED_CODEC"
    """A codec this FFmpeg build cannot decode."""
    TOO_LARGE = "TOO_LARGE"
    """More pixels a frame, frames or bytes than the limits allow."""
    TOO_SHORT = "TOO_SHORT"
    """No window fits (zero decodable frames, or ``tail = drop`` and fewer than one window)."""
    DECODE_TIMEOUT = "DECODE_TIMEOUT"
    """The decoder made no progress, or the video took longer than its limit."""
    DECODER_CRASH = "DECODER_CRASH"
    """The decoding process died, repeatedly."""
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    """Decoding or encoding needs more memory than is allowed, even alone."""
    NON_FINITE = "NON_FINITE"
    """The tokenizer returned NaN or infinity for a window."""
    WORKER_LOST = "WORKER_LOST"
    """Workers died while they held this video, as often as is allowed."""
    INTERNAL = "INTERNAL"
    """An error of ours; the detail says which, and it is worth an issue."""


class FailureStage(StrEnum):
    """Where it went wrong."""

    OPEN = "open"
    DECODE = "decode"
    ANALYSE = "analyse"
    TOKENISE = "tokenise"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One reason, with what a person needs to look further.

    Attributes:
        reason: Member of the closed vocabulary.
        stage: Where it was noticed.
        detail: One line of free text; names the cause, holds no credentials.
        num_frames: Frames decoded before it happened, >= 0.
    """

    reason: FailureReason
    stage: FailureStage
    detail: str
    num_frames: int = 0
