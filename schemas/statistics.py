"""The frozen statistics of pass one: one document, with its own digest.

`ElboStatistics` is stored as ``meta/statistics.json``; pass two refuses it when it is of another
plan or tokenizer. What it counts with is in `bins`, what is solved from it in `rates`; both are
offered here again, for those who only follow the statistics through the pipeline.
"""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction
from typing import Annotated, Any, Self

from pydantic import Field

from schemas.bins import ElboAccumulator, ElboBins, bin_bounds, bin_index
from schemas.documents import Document, Part, canonical_json, parse_json
from schemas.rates import RateRule, num_tokens, paper_scale, solve_rule, solve_scale, window_rate
from schemas.versions import FormatError

__all__ = [
    "ELBO_SIGN",
    "ELBO_UNIT",
    "PREDICTED_ELBO_UNIT",
    "ElboAccumulator",
    "ElboBins",
    "ElboStatistics",
    "RateRule",
    "StatisticsFold",
    "VideoMoments",
    "bin_bounds",
    "bin_index",
    "elbo_unit",
    "merge_statistics",
    "num_tokens",
    "paper_scale",
    "solve_rule",
    "solve_scale",
    "window_rate",
]

ELBO_UNIT = "mean absolute error on pixels in [-1, 1]"
PREDICTED_ELBO_UNIT = f"{ELBO_UNIT}, predicted from the latent"
"""Where a latent router stood in for the measurement: like the unit, but nothing was decoded."""
ELBO_SIGN = "higher = more information"


def elbo_unit(information: str) -> str:
    """The unit of every ELBO of a corpus, by ``analysis.information``: ``elbo`` or ``latent``."""
    return PREDICTED_ELBO_UNIT if information == "latent" else ELBO_UNIT


_Z95 = 1.959963984540054
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


class ElboStatistics(Document):
    """What is known of the information of a corpus.

    Attributes:
        plan_id: Plan of the run that measured it.
        tokenizer: Fingerprint of the tokenizer that measured it.
        unit: Unit of every ELBO here: `ELBO_UNIT` or `PREDICTED_ELBO_UNIT`.
        sign: Which way it points.
        bins: The windows.
        moments: The videos.
        num_sampled: Videos that were looked at, with or without windows.
        num_listed: Videos of the plan; more than ``num_sampled`` if this is a sample.
    """

    plan_id: str
    tokenizer: str
    unit: str = ELBO_UNIT
    sign: str = ELBO_SIGN
    bins: ElboBins
    moments: VideoMoments
    num_sampled: _Count
    num_listed: _Count

    @property
    def windows(self) -> int:
        """Number of windows."""
        return self.bins.windows

    @property
    def tokens(self) -> int:
        """Number of positions: tokens at full rate."""
        return self.bins.tokens

    @property
    def videos(self) -> int:
        """Videos with at least one window."""
        return self.moments.videos

    @property
    def token_weighted_mean(self) -> float:
        """Mean information of a position."""
        return self.bins.token_weighted_mean

    @property
    def window_weighted_mean(self) -> float:
        """E[ELBO] of the paper: mean over windows."""
        return self.bins.window_weighted_mean

    @property
    def is_sample(self) -> bool:
        """Whether not every listed video was looked at."""
        return self.num_sampled < self.num_listed

    @property
    def confidence_half_width(self) -> float | None:
        """Half the 95 % interval of `token_weighted_mean`; None for a full count or below 2 videos.

        Ratio estimator over videos drawn without replacement, with the finite-population factor.
        """
        moments, tokens = self.moments, self.tokens
        if not self.is_sample or moments.videos < 2 or not tokens:
            return None
        ratio = Fraction(self.bins.weighted, tokens)
        residual = (
            moments.weighted_squared
            - 2 * ratio * moments.product
            + ratio * ratio * moments.tokens_squared
        )
        unseen = 1 - Fraction(self.num_sampled, self.num_listed)
        count = moments.videos
        # Var(R) = (1 - f) / n * s_d**2 / mean(T)**2, with s_d**2 = residual / (n - 1).
        variance = unseen * residual * count / ((count - 1) * tokens * tokens)
        return _Z95 * math.sqrt(max(float(variance), 0.0)) * 2.0**-24

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the document without its digest."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json"))).hexdigest()

    def to_bytes(self, *, indent: int | None = None) -> bytes:
        """Canonical JSON with the digest, and with the means for those who read it by eye."""
        low, high = self.bins.range
        summary = {
            "windows": self.windows,
            "tokens": self.tokens,
            "videos": self.videos,
            "token_weighted_mean": self.token_weighted_mean,
            "window_weighted_mean": self.window_weighted_mean,
            "min": low,
            "max": high,
            "confidence_half_width": self.confidence_half_width,
        }
        document = {**self.model_dump(mode="json"), "digest": self.digest, "summary": summary}
        return canonical_json(document, indent=indent)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote; the summary is computed again, not believed.

        Raises:
            FormatError: If the bytes are damaged, of another version, or changed since they were
                frozen (the digest is another).
        """
        document: dict[str, Any] = parse_json(data, what=cls.__name__)
        stored = document.pop("digest", None)
        document.pop("summary", None)
        statistics = cls._validated(document)
        if stored != statistics.digest:
            raise FormatError(
                f"ElboStatistics was changed: digest {stored}, but it should be {statistics.digest}"
            )
        return statistics

    def require(self, *, plan_id: str, tokenizer: str) -> None:
        """Refuse to be used for another plan or tokenizer.

        Raises:
            ValueError: If it is another's; the message says which.
        """
        for name, own, asked in (
            ("plan", self.plan_id, plan_id),
            ("tokenizer", self.tokenizer, tokenizer),
        ):
            if own != asked:
                raise ValueError(f"statistics of {name} {own} cannot be used with {name} {asked}")


class StatisticsFold:
    """Folds videos into statistics; mutable, for one owner. The order of calls does not matter."""

    def __init__(self) -> None:
        self._bins = ElboAccumulator()
        # The fields of `VideoMoments`: as documents, one per video, they cost more than all else.
        self._moments = [0, 0, 0, 0]
        self._num_sampled = 0

    def add_video(self, bins: ElboBins) -> None:
        """Count a video by the bins of its receipt: empty if it was quarantined."""
        self._bins.merge(bins)
        tokens, weighted = bins.tokens, bins.weighted
        self._add_moments(1 if tokens else 0, tokens**2, weighted**2, tokens * weighted)
        self._num_sampled += 1

    def merge(self, other: ElboStatistics) -> None:
        """Count all videos of another document; that they are others is the caller's word."""
        self._bins.merge(other.bins)
        moments = other.moments
        self._add_moments(
            moments.videos, moments.tokens_squared, moments.weighted_squared, moments.product
        )
        self._num_sampled += other.num_sampled

    def freeze(
        self, *, plan_id: str, tokenizer: str, num_listed: int, unit: str = ELBO_UNIT
    ) -> ElboStatistics:
        """The document of what was counted so far.

        Raises:
            ValueError: If more videos were counted than listed.
        """
        if num_listed < self._num_sampled:
            raise ValueError(f"counted {self._num_sampled} videos of {num_listed} listed ones")
        return ElboStatistics(
            plan_id=plan_id,
            tokenizer=tokenizer,
            unit=unit,
            bins=self._bins.freeze(),
            moments=VideoMoments(
                **dict(zip(VideoMoments.model_fields, self._moments, strict=True))
            ),
            num_sampled=self._num_sampled,
            num_listed=num_listed,
        )

    def _add_moments(self, *moments: int) -> None:
        self._moments = [old + new for old, new in zip(self._moments, moments, strict=True)]


def merge_statistics(*parts: ElboStatistics, plan_id: str) -> ElboStatistics:
    """One document for several corpora, measured by one tokenizer.

    Raises:
        ValueError: If there is none, or the tokenizers or the units differ.
    """
    tokenizers, units = {part.tokenizer for part in parts}, {part.unit for part in parts}
    if len(tokenizers) != 1:
        raise ValueError(f"statistics of one tokenizer can be merged, not of {sorted(tokenizers)}")
    if len(units) != 1:
        raise ValueError(f"measured and predicted information cannot be merged: {sorted(units)}")
    fold = StatisticsFold()
    for part in parts:
        fold.merge(part)
    num_listed = sum(part.num_listed for part in parts)
    return fold.freeze(
        plan_id=plan_id, tokenizer=tokenizers.pop(), num_listed=num_listed, unit=units.pop()
    )
