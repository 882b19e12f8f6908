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

from pydantic import Field, model_validator

from schemas.bins import ElboAccumulator, ElboBins, bin_bounds, bin_index
from schemas.documents import Document, canonical_json, parse_json
from schemas.moments import VideoMoments
from schemas.rates import RateRule, num_tokens, paper_scale, solve_rule, solve_scale, window_rate
from schemas.token_bins import TokenAccumulator, TokenBins
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


class ElboStatistics(Document):
    """What is known of the information of a corpus.

    Attributes:
        plan_id: Plan of the run that measured it.
        tokenizer: Fingerprint of the tokenizer that measured it.
        unit: Unit of every ELBO here: `ELBO_UNIT` or `PREDICTED_ELBO_UNIT`.
        sign: Which way it points.
        bins: The windows.
        moments: The videos.
        token_bins: The tokens, if the router of the run asks for them; else left out of the
            document.
        num_sampled: Videos that were looked at, with or without windows.
        num_listed: Videos of the plan; more than ``num_sampled`` if this is a sample.
    """

    plan_id: str
    tokenizer: str
    unit: str = ELBO_UNIT
    sign: str = ELBO_SIGN
    bins: ElboBins
    moments: VideoMoments
    token_bins: TokenBins | None = None
    num_sampled: _Count
    num_listed: _Count

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.token_bins is not None and self.token_bins.tokens != self.bins.tokens:
            raise ValueError(
                f"windows of {self.bins.tokens} tokens, but {self.token_bins.tokens} were counted"
            )
        return self

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
        return hashlib.sha256(canonical_json(self._stored())).hexdigest()

    def _stored(self) -> dict[str, Any]:
        # Younger than the rest: what does not use it stays byte for byte what it was.
        absent = {"token_bins"} if self.token_bins is None else set[str]()
        return self.model_dump(mode="json", exclude=absent)

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
        document = {**self._stored(), "digest": self.digest, "summary": summary}
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


class StatisticsFold:
    """Folds videos into statistics; mutable, for one owner. The order of calls does not matter.

    Args:
        token_floor: Least rate that the tokens of the videos were counted with; None: what was
            counted of tokens is left out.
    """

    def __init__(self, token_floor: float | None = None) -> None:
        self._bins = ElboAccumulator()
        self._tokens = None if token_floor is None else TokenAccumulator(token_floor)
        # The fields of `VideoMoments`: as documents, one per video, they cost more than all else.
        self._moments = [0, 0, 0, 0]
        self._num_sampled = 0

    def add_video(self, bins: ElboBins, token_bins: TokenBins | None = None) -> None:
        """Count a video by the bins of its receipt: empty if it was quarantined.

        Raises:
            ValueError: If its tokens were not counted, or with another least rate.
        """
        self._bins.merge(bins)
        self._merge_tokens(bins, token_bins)
        tokens, weighted = bins.tokens, bins.weighted
        self._add_moments(1 if tokens else 0, tokens**2, weighted**2, tokens * weighted)
        self._num_sampled += 1

    def merge(self, other: ElboStatistics) -> None:
        """Count all videos of another document; that they are others is the caller's word.

        Raises:
            ValueError: As `add_video`.
        """
        self._bins.merge(other.bins)
        self._merge_tokens(other.bins, other.token_bins)
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
            token_bins=None if self._tokens is None else self._tokens.freeze(),
            num_sampled=self._num_sampled,
            num_listed=num_listed,
        )

    def _merge_tokens(self, bins: ElboBins, token_bins: TokenBins | None) -> None:
        if self._tokens is None:
            return
        if token_bins is not None:
            self._tokens.merge(token_bins)
        elif bins.bins:
            raise ValueError("its tokens were not counted in pass one")

    def _add_moments(self, *moments: int) -> None:
        self._moments = [old + new for old, new in zip(self._moments, moments, strict=True)]


def merge_statistics(*parts: ElboStatistics, plan_id: str) -> ElboStatistics:
    """One document for several corpora, measured by one tokenizer.

    It has the tokens if each of them has, counted alike.

    Raises:
        ValueError: If there is none, or the tokenizers or the units differ.
    """
    tokenizers, units = {part.tokenizer for part in parts}, {part.unit for part in parts}
    if len(tokenizers) != 1:
        raise ValueError(f"statistics of one tokenizer can be merged, not of {sorted(tokenizers)}")
    if len(units) != 1:
        raise ValueError(f"measured and predicted information cannot be merged: {sorted(units)}")
    floors = {part.token_bins.min_rate if part.token_bins else None for part in parts}
    fold = StatisticsFold(floors.pop() if len(floors) == 1 else None)
    for part in parts:
        fold.merge(part)
    num_listed = sum(part.num_listed for part in parts)
    return fold.freeze(
        plan_id=plan_id, tokenizer=tokenizers.pop(), num_listed=num_listed, unit=units.pop()
    )
