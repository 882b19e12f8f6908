"""``meta/reconstruction.json``: how far a sample of windows is from its source."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from schemas.documents import Document, Part

__all__ = ["MeasuredClip", "ReconstructionSample"]

_Count = Annotated[int, Field(ge=1)]


class MeasuredClip(Part):
    """One decoded window.

    Attributes:
        clip_id: Its key.
        source: URI of its video.
        num_frames: Frames with content: what its measures are means over.
        num_tokens: Kept tokens.
        rate: Share of kept tokens.
        psnr_db: At most 100.
        ssim: 7 x 7 windows, colours apart.
    """

    clip_id: str
    source: str
    num_frames: _Count
    num_tokens: _Count
    rate: Annotated[float, Field(gt=0, le=1)]
    psnr_db: float
    ssim: float


class ReconstructionSample(Document):
    """Windows chosen at random, measured by ``infotok validate --reconstruct``.

    Attributes:
        tokens_key: Of the corpus; a document of another one says nothing.
        tokenizer: Fingerprint of the tokenizer that decoded.
        clips: In order of their key.
    """

    tokens_key: str
    tokenizer: str
    clips: Annotated[tuple[MeasuredClip, ...], Field(min_length=1)]

    @property
    def psnr_db(self) -> float:
        """Mean over all frames."""
        return self._mean("psnr_db")

    @property
    def ssim(self) -> float:
        """Mean over all frames."""
        return self._mean("ssim")

    def _mean(self, name: str) -> float:
        frames = sum(clip.num_frames for clip in self.clips)
        return sum(getattr(clip, name) * clip.num_frames for clip in self.clips) / frames
