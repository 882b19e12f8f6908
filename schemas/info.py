"""``meta/info.json``: what a corpus is, for a reader who has nothing but the corpus."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from schemas.dealing import Rule
from schemas.documents import Document, Part, canonical_json, parse_json
from schemas.failures import FailureReason
from schemas.manifest import Totals
from schemas.statistics import ELBO_SIGN, ELBO_UNIT, ElboStatistics
from schemas.tokens import MAX_CODES, NUM_CODES, bpp16

__all__ = ["CorpusInfo", "Generation", "StatisticsSample", "TokenizerInfo", "VideoCounts"]

_Count = Annotated[int, Field(ge=0)]


class TokenizerInfo(Part):
    """Which tokenizer wrote the ids.

    Attributes:
        fingerprint: SHA-256 over its configuration and weights; the ``tokenizer`` column.
        name: For people: ``default``, or a directory or file name.
        num_codes: Ids are in [0, num_codes); the rest of uint16 is free for special ids.
        spatial_compression: Pixels per latent row and column.
        temporal_compression: Frames per latent frame, after the first.
    """

    fingerprint: str
    name: str
    num_codes: Annotated[int, Field(ge=1, le=MAX_CODES)] = NUM_CODES
    spatial_compression: Annotated[int, Field(ge=1)]
    temporal_compression: Annotated[int, Field(ge=1)]


class VideoCounts(Part):
    """Where every listed video went: ``listed = committed + quarantined``."""

    listed: _Count
    committed: _Count
    quarantined: _Count

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.listed != self.committed + self.quarantined:
            raise ValueError(
                f"{self.listed} videos listed, but {self.committed} committed and "
                f"{self.quarantined} quarantined"
            )
        return self


class StatisticsSample(Part):
    """That the statistics, and with them the rule, come from a sample of the videos.

    Attributes:
        videos: Sampled; those that were set aside included.
        listed: Of how many.
        mean_elbo: Token-weighted mean over the sample.
        confidence_half_width: Half its 95 % interval; None if less than two videos had windows.
        meaning: For a reader who has nothing but the corpus.
    """

    videos: _Count
    listed: _Count
    mean_elbo: float
    confidence_half_width: float | None
    meaning: str = (
        "the scale was solved on a sample of the videos: the realised rate meets the target only "
        "approximately"
    )

    @classmethod
    def of(cls, statistics: ElboStatistics) -> StatisticsSample | None:
        """What there is to say; None if every video was counted."""
        if not statistics.is_sample:
            return None
        return cls(
            videos=statistics.num_sampled,
            listed=statistics.num_listed,
            mean_elbo=statistics.token_weighted_mean,
            confidence_half_width=statistics.confidence_half_width,
        )


class Generation(Part):
    """One of the runs that a grown corpus was put together from.

    Attributes:
        plan_id: Identity of its pass one.
        tokens_key: Identity of its pass two.
        routing: The rule by which its windows got their rates.
        own_statistics: Whether that rule was solved on its own videos; else it is that of the
            corpus it was appended to, and its rate is whatever its videos make of it.
        statistics_digest: Of its own `ElboStatistics`.
        videos: With rows.
        totals: Over its rows.
        first_shard: Its data files have this shard number or more, up to the next generation's.
    """

    plan_id: str
    tokens_key: str
    routing: Rule
    own_statistics: bool
    statistics_digest: str | None
    videos: _Count
    totals: Totals
    first_shard: _Count


class CorpusInfo(Document):
    """Head of a corpus.

    Attributes:
        source_root: What the ``source`` column is relative to.
        plan_id: Identity of pass one.
        tokens_key: Identity of pass two.
        tokenizer: Which one.
        window: Policy in time, as in the run configuration.
        space: Policy in space, as in the run configuration.
        routing: The rule by which windows got their rates, with the scale or the threshold that was
            used; of a grown corpus that of its first generation.
        statistics_digest: `ElboStatistics.digest` of ``meta/statistics.json``; None if pass two
            needed no statistics.
        statistics_sample: Where these come from a sample; left out of the document otherwise.
        elbo_unit: Unit of the ``elbo`` and ``frame_elbo`` columns; says so if they are predictions
            of a latent router.
        elbo_sign: Which way they point.
        split: First part of every data file's name.
        formats: ``parquet``, ``webdataset`` or both: each then holds all rows.
        licence: As the run was told.
        videos: Accounting.
        totals: Over the rows.
        files: Data files of the manifest.
        num_bytes: Their sizes added up.
        reasons: Quarantined videos by reason.
        extra_columns: Name and Arrow type of the columns that rode along.
        generations: Of a corpus that was appended to or merged, in order of their shards; left out
            of the document otherwise. Plan, pass two and statistics of the head are then digests of
            theirs.
    """

    source_root: str
    plan_id: str
    tokens_key: str
    tokenizer: TokenizerInfo
    window: dict[str, Any]
    space: dict[str, Any]
    routing: Rule
    statistics_digest: str | None
    statistics_sample: StatisticsSample | None = None
    elbo_unit: str = ELBO_UNIT
    elbo_sign: str = ELBO_SIGN
    split: str
    formats: tuple[str, ...]
    licence: str
    videos: VideoCounts
    totals: Totals
    files: _Count
    num_bytes: _Count
    reasons: dict[FailureReason, _Count]
    extra_columns: dict[str, str] = Field(default_factory=dict)
    generations: tuple[Generation, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(self.reasons.values()) != self.videos.quarantined:
            raise ValueError(
                f"reasons count {sum(self.reasons.values())} videos, "
                f"{self.videos.quarantined} are quarantined"
            )
        if self.generations:
            totals = sum((part.totals for part in self.generations), Totals())
            videos = sum(part.videos for part in self.generations)
            if (totals, videos) != (self.totals, self.videos.committed):
                raise ValueError("the generations do not add up to the corpus")
        return self

    @property
    def realised_rate(self) -> float:
        """Kept tokens / tokens at full rate, over the corpus."""
        return self.totals.rate

    @property
    def bpp16(self) -> float:
        """See `tokens.bpp16`; 0.0 without windows."""
        totals = self.totals
        if not totals.pixels:
            return 0.0
        num_codes = self.tokenizer.num_codes
        return bpp16(totals.tokens, totals.cells, totals.pixels, num_codes=num_codes)

    def to_bytes(self, *, indent: int | None = 2) -> bytes:
        """Canonical JSON for people, with the derived numbers under ``realised``."""
        realised = {"rate": self.realised_rate, "bpp16": self.bpp16}
        document = {**self.model_dump(mode="json"), "realised": realised}
        if self.statistics_sample is None:
            del document["statistics_sample"]
        if not self.generations:
            del document["generations"]
        return canonical_json(document, indent=indent)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote; ``realised`` is computed again, not believed.

        Raises:
            FormatError: If the bytes are damaged, of another version, or do not add up.
        """
        document = parse_json(data, what=cls.__name__)
        document.pop("realised", None)
        return cls._validated(document)
