"""What became of one video in pass one: where its units are, or why it was set aside.

One small object per video, written after its last unit: its existence means that the video is done.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from schemas.bins import ElboBins
from schemas.documents import Document, Part, canonical_json
from schemas.failures import Failure, FailureReason, FailureStage
from schemas.token_bins import TokenBins
from schemas.versions import FORMAT_VERSION
from schemas.windows import StreamFacts

__all__ = ["FailureRecord", "UnitEntry", "VideoReceipt"]

_Count = Annotated[int, Field(ge=0)]
_AS_PUBLISHED = f'{{"format_version":{FORMAT_VERSION},'.encode()


class UnitEntry(Part):
    """A stored work unit.

    Attributes:
        unit_id: See `ids.unit_id`.
        path: Of its object, relative to the work root.
        windows: How many it holds.
        tokens: Their positions, tokens at full rate.
        sha256: Hex digest of the object.
        num_bytes: Its size.
    """

    unit_id: str
    path: str
    windows: _Count
    tokens: _Count
    sha256: str
    num_bytes: _Count


class FailureRecord(Part):
    """A `failures.Failure` as it is stored."""

    reason: FailureReason
    stage: FailureStage
    detail: str
    num_frames: _Count = 0

    @classmethod
    def of(cls, failure: Failure) -> FailureRecord:
        """The stored form of a failure."""
        return cls(
            reason=failure.reason,
            stage=failure.stage,
            detail=failure.detail,
            num_frames=failure.num_frames,
        )

    def failure(self) -> Failure:
        """The failure that was stored."""
        return Failure(
            reason=self.reason, stage=self.stage, detail=self.detail, num_frames=self.num_frames
        )


class VideoReceipt(Document):
    """The end of one video's way through pass one.

    Attributes:
        video_id: See `ids.video_id`.
        uri: Canonical path relative to the source root.
        version: ETag, or size and modification time, of the object that was read.
        status: ``analysed`` has units and no failure; ``quarantined`` the other way round.
        facts: `windows.StreamFacts` as a dict; None if the stream could not be opened.
        windows: Windows found: stored in units, or given up with the video.
        tokens: Positions of the stored windows, tokens at full rate.
        units: Every unit of the video, in order; empty if it was quarantined.
        num_frames_decoded: Frames that came out of the decoder.
        num_frames_dropped: Of these, frames no window holds (``tail = drop``).
        bins: Exact histogram of the stored windows.
        token_bins: Of their tokens, if the router of the run asks for it; else left out of the
            document.
        failure: Why it was set aside.
        attempts: Starts it took, this one included.
    """

    video_id: str
    uri: str
    version: str
    status: Literal["analysed", "quarantined"]
    facts: dict[str, Any] | None = None
    windows: _Count = 0
    tokens: _Count = 0
    units: tuple[UnitEntry, ...] = ()
    num_frames_decoded: _Count = 0
    num_frames_dropped: _Count = 0
    bins: ElboBins = ElboBins()
    token_bins: TokenBins | None = None
    failure: FailureRecord | None = None
    attempts: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.status == "quarantined") != (self.failure is not None):
            raise ValueError(f"video {self.video_id} is {self.status}, failure {self.failure}")
        if self.status == "quarantined":
            if self.units or self.bins.bins or self.token_bins:
                raise ValueError(f"video {self.video_id} is quarantined but has units")
            return self
        if self.facts is None:
            raise ValueError(f"video {self.video_id} is analysed but has no stream facts")
        for name in ("windows", "tokens"):
            told = getattr(self, name)
            units = sum(getattr(unit, name) for unit in self.units)
            if not told == units == getattr(self.bins, name):
                raise ValueError(
                    f"video {self.video_id}: {told} {name}, its units hold {units}, "
                    f"its bins {getattr(self.bins, name)}"
                )
        if self.token_bins is not None and self.token_bins.tokens != self.tokens:
            raise ValueError(
                f"video {self.video_id}: {self.tokens} tokens, its token bins hold "
                f"{self.token_bins.tokens}"
            )
        return self

    @property
    def _absent(self) -> set[str]:
        # Younger than the rest: what does not use it stays byte for byte what it was.
        return {"token_bins"} if self.token_bins is None else set()

    def published(self) -> bytes:
        """The bytes of the receipt's object: one line of JSON."""
        return self.model_dump_json(exclude=self._absent).encode()

    def to_bytes(self, *, indent: int | None = None) -> bytes:
        """Canonical JSON, for people; `from_bytes` reads it as well."""
        return canonical_json(self.model_dump(mode="json", exclude=self._absent), indent=indent)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `published` or `to_bytes` wrote.

        Raises:
            FormatError: If the bytes are damaged, of another version, or break a rule.
        """
        if data.startswith(_AS_PUBLISHED):
            # Half the time of parsing first: there are millions of them.
            try:
                return cls.model_validate_json(data)
            except ValidationError:
                pass
        return super().from_bytes(data)

    def stream_facts(self) -> StreamFacts:
        """The facts of an analysed video.

        Raises:
            ValueError: If there are none.
        """
        if self.facts is None:
            raise ValueError(f"video {self.video_id} was never opened: it has no stream facts")
        return StreamFacts(**self.facts)
