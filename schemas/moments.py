"""What the error of statistics from a sample of videos is worked out from."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from schemas.bins import ElboBins
from schemas.documents import Part

__all__ = ["VideoMoments"]

_Count = Annotated[int, Field(ge=0)]


class VideoMoments(Part):
    """Exact second moments over videos, for the error of an estimate from a sample of videos.

    Windows of one video resemble each other, so the spread between windows would promise too much.

    Attributes:
        videos: Videos with at least one window.
        tokens_squared: Sum over videos of T**2, T the positions of a video.
        weighted_squared: Sum of W**2, W its summed information in units of 2**-24.
        product: Sum of T * W.
    """

    videos: _Count = 0
    tokens_squared: _Count = 0
    weighted_squared: _Count = 0
    product: _Count = 0

    @classmethod
    def of(cls, bins: ElboBins) -> VideoMoments:
        """The moments of one video; of none if it has no window."""
        tokens, weighted = bins.tokens, bins.weighted
        return cls(
            videos=1 if tokens else 0,
            tokens_squared=tokens * tokens,
            weighted_squared=weighted * weighted,
            product=tokens * weighted,
        )

    def __add__(self, other: VideoMoments) -> VideoMoments:
        return VideoMoments(
            videos=self.videos + other.videos,
            tokens_squared=self.tokens_squared + other.tokens_squared,
            weighted_squared=self.weighted_squared + other.weighted_squared,
            product=self.product + other.product,
        )
