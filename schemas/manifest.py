# pyright: standard
# (pyarrow ships no stubs: strict would report each of its names)
"""Which files a shard became, and which files the corpus is: readers trust the manifest alone.

A `ShardCommit` is written after the data files of its shard; ``meta/manifest.parquet`` after the
last commit. The corpus exists when the manifest does.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

import pyarrow as pa
from pydantic import Field, ValidationError, model_validator

from schemas.bins import log_bin
from schemas.documents import Document, Part
from schemas.tables import not_null, read_parquet, write_parquet
from schemas.versions import FormatError

__all__ = [
    "MANIFEST_SCHEMA",
    "RATE_BINS",
    "TOKEN_MANTISSA_BITS",
    "DataFile",
    "ShardCommit",
    "Totals",
    "TotalsBuilder",
    "decode_manifest",
    "encode_manifest",
]

RATE_BINS = 32
"""Bins of the rate histogram; bin k counts windows with k/32 < num_tokens / cells <= (k+1)/32."""
TOKEN_MANTISSA_BITS = 6
"""The histogram of tokens per window has 64 bins per octave: `bins.log_bin` with these bits."""

MANIFEST_SCHEMA = pa.schema(
    [
        not_null("path", pa.string(), "relative to the corpus root"),
        not_null("bytes", pa.int64(), "size"),
        not_null("sha256", pa.string(), "hex"),
        not_null("clips", pa.int64(), "rows or samples"),
        not_null("tokens", pa.int64(), "kept tokens"),
        not_null("min_clip_id", pa.string(), "smallest key"),
        not_null("max_clip_id", pa.string(), "largest key"),
        not_null("shard", pa.int32(), "shard of the plan"),
        not_null("format", pa.string(), "parquet or webdataset: both formats hold the same rows"),
    ]
)

_Count = Annotated[int, Field(ge=0)]
_RateHistogram = Annotated[tuple[_Count, ...], Field(min_length=RATE_BINS, max_length=RATE_BINS)]


class DataFile(Part):
    """One data file; its fields are the columns of `MANIFEST_SCHEMA`.

    Attributes:
        path: Relative to the corpus root.
        bytes: Size.
        sha256: Hex digest of the bytes.
        clips: Rows (Parquet) or samples (WebDataset), at least one.
        tokens: Kept tokens.
        min_clip_id: Smallest key.
        max_clip_id: Largest key.
        shard: Shard of the plan.
        format: With ``both``, each row is in one file of each format.
    """

    path: str
    bytes: _Count
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    clips: Annotated[int, Field(ge=1)]
    tokens: _Count
    min_clip_id: str
    max_clip_id: str
    shard: _Count
    format: Literal["parquet", "webdataset"]

    @classmethod
    def of(
        cls,
        path: str,
        data: bytes,
        *,
        rows: Iterable[Mapping[str, Any]],
        shard: int,
        format: Literal["parquet", "webdataset"],
    ) -> DataFile:
        """The entry of a file with these bytes, which hold these rows.

        Raises:
            ValueError: If there is no row.
        """
        pairs = [(row["clip_id"], row["num_tokens"]) for row in rows]
        if not pairs:
            raise ValueError(f"data file {path} holds no row")
        return cls(
            path=path,
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            clips=len(pairs),
            tokens=sum(tokens for _, tokens in pairs),
            min_clip_id=min(clip for clip, _ in pairs),
            max_clip_id=max(clip for clip, _ in pairs),
            shard=shard,
            format=format,
        )


class Totals(Part):
    """Sums and histograms over token rows: integers, so adding them up has no order.

    Attributes:
        clips: Windows.
        tokens: Kept tokens.
        cells: Positions t*h*w: tokens at full rate, and bits of the masks.
        pixels: Frames with content * rows * columns.
        rate_histogram: Windows per bin; see `RATE_BINS`.
        token_histogram: (bin, windows) in order, empty bins left out; see `TOKEN_MANTISSA_BITS`.
    """

    clips: _Count = 0
    tokens: _Count = 0
    cells: _Count = 0
    pixels: _Count = 0
    rate_histogram: _RateHistogram = (0,) * RATE_BINS
    token_histogram: tuple[tuple[_Count, _Count], ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        rates = sum(self.rate_histogram)
        tokens = sum(windows for _, windows in self.token_histogram)
        if not rates == tokens == self.clips:
            raise ValueError(f"histograms count {rates} and {tokens} windows of {self.clips}")
        return self

    @property
    def rate(self) -> float:
        """Realised token-weighted mean rate; 0.0 without windows."""
        return self.tokens / self.cells if self.cells else 0.0

    def __add__(self, other: Totals) -> Totals:
        builder = TotalsBuilder()
        builder.merge(self)
        builder.merge(other)
        return builder.freeze()


class TotalsBuilder:
    """Adds rows up; mutable, for one owner."""

    def __init__(self) -> None:
        self._sums: Counter[str] = Counter()
        self._rates = [0] * RATE_BINS
        self._tokens: Counter[int] = Counter()

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a row of `tokens.TOKEN_SCHEMA`; ``tokens`` and ``mask`` are not looked at."""
        kept = row["num_tokens"]
        cells = row["grid_t"] * row["grid_h"] * row["grid_w"]
        self._rates[(kept * RATE_BINS - 1) // cells] += 1
        self._tokens[log_bin(kept, mantissa_bits=TOKEN_MANTISSA_BITS)] += 1
        self._sums["clips"] += 1
        self._sums["tokens"] += kept
        self._sums["cells"] += cells
        self._sums["pixels"] += row["num_frames"] * row["width"] * row["height"]

    def merge(self, totals: Totals) -> None:
        """Count the rows behind ``totals``."""
        for name in ("clips", "tokens", "cells", "pixels"):
            self._sums[name] += getattr(totals, name)
        for index, windows in enumerate(totals.rate_histogram):
            self._rates[index] += windows
        self._tokens.update(dict(totals.token_histogram))

    def freeze(self) -> Totals:
        """What was counted so far."""
        return Totals(
            **self._sums,
            rate_histogram=tuple(self._rates),
            token_histogram=tuple(sorted(self._tokens.items())),
        )


class ShardCommit(Document):
    """The end of one shard's way through pass two.

    Attributes:
        tokens_key: Identity of pass two: statistics, routing and output policy.
        shard: Number in the plan.
        files: Its data files in order of their path; empty if all its videos were quarantined.
        videos: Videos with rows in these files.
        totals: Of its rows, each counted once, also when two formats hold it.
    """

    tokens_key: str
    shard: _Count
    files: tuple[DataFile, ...]
    videos: _Count
    totals: Totals

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in {file.format for file in self.files}:
            files = [file for file in self.files if file.format == name]
            found = sum(file.clips for file in files), sum(file.tokens for file in files)
            if found != (self.totals.clips, self.totals.tokens):
                raise ValueError(
                    f"shard {self.shard}: {name} files hold {found} clips and tokens, "
                    f"the totals say {(self.totals.clips, self.totals.tokens)}"
                )
        if not self.files and self.totals.clips:
            raise ValueError(f"shard {self.shard} has {self.totals.clips} clips but no file")
        return self

    @property
    def clips(self) -> int:
        """Windows of the shard."""
        return self.totals.clips

    @property
    def tokens(self) -> int:
        """Kept tokens of the shard."""
        return self.totals.tokens

    @property
    def cells(self) -> int:
        """Tokens of the shard at full rate."""
        return self.totals.cells


def encode_manifest(files: Iterable[DataFile]) -> bytes:
    """``meta/manifest.parquet``, in order of the path."""
    rows = [file.model_dump() for file in sorted(files, key=lambda file: file.path)]
    return write_parquet(pa.Table.from_pylist(rows, schema=MANIFEST_SCHEMA), metadata={})


def decode_manifest(data: bytes) -> list[DataFile]:
    """The data files of the corpus, in order of their path.

    Raises:
        FormatError: If the bytes are damaged or of another version.
    """
    table = read_parquet(data, schema=MANIFEST_SCHEMA, what="manifest")
    rows = table.select(MANIFEST_SCHEMA.names).to_pylist()
    try:
        return [DataFile(**row) for row in rows]
    except ValidationError as error:
        raise FormatError(f"manifest: a row does not fit: {error.errors()[0]}") from error
