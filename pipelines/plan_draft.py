"""What a plan of the source as it is now would be, before anything is written."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from itertools import islice
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from pipelines.config import RunConfig
from pipelines.errors import PipelineError
from pipelines.sorted_listing import ListedObject, SortedListing
from pipelines.sources import Source
from schemas.ids import video_id
from schemas.plan import BLOCK_VIDEOS, PLAN_SCHEMA, ExtraColumn, PlanHead, plan_digest
from schemas.versions import FORMAT_VERSION

__all__ = ["PLAN_GROUP_ROWS", "PlanDraft", "Shards", "draft_plan", "extra_columns", "plan_head"]

PLAN_GROUP_ROWS = 4 * BLOCK_VIDEOS
"""Rows per row group of ``plan.parquet``: whole blocks."""


class PlanDraft:
    """The head of a plan and the listing its rows are made from. A context manager.

    Attributes:
        head: Of the plan.
        listing: Everything listed, by URI.
    """

    def __init__(self, head: PlanHead, listing: SortedListing, config: RunConfig) -> None:
        self.head = head
        self.listing = listing
        self._config = config

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.listing.close()

    def tables(self) -> Iterator[pa.Table]:
        """The rows, ``PLAN_GROUP_ROWS`` at a time."""
        shards = Shards(self._config)
        rows = iter(self.listing)
        while group := list(islice(rows, PLAN_GROUP_ROWS)):
            uris, sizes, versions, extras = zip(*group, strict=True)
            yield pa.table(
                {
                    "uri": uris,
                    "video_id": [video_id(uri) for uri in uris],
                    "size": sizes,
                    "version": versions,
                    "shard": [shards.of(size) for size in sizes],
                    "extra": pa.array(extras, pa.string()),
                },
                schema=PLAN_SCHEMA,
            )

    def parquet(self) -> bytes:
        """``plan.parquet``: some 60 bytes per video, and nothing else is held."""
        # Arrow's own buffer doubles as it grows, and is copied in the end.
        sink = io.BytesIO()
        schema = PLAN_SCHEMA.with_metadata({"format_version": str(FORMAT_VERSION)})
        with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
            for table in self.tables():
                writer.write_table(table, row_group_size=PLAN_GROUP_ROWS)
        return sink.getvalue()


def draft_plan(source: Source, config: RunConfig, *, tokenizer: str) -> PlanDraft:
    """List, sort, shard. Opens no video.

    Args:
        tokenizer: Fingerprint of the tokenizer.

    Raises:
        PipelineError: If nothing is listed, or a URI is listed twice.
    """
    listing = SortedListing(source.objects, extra=_canonical)
    try:
        shards = Shards(config)
        digest = hashlib.sha256()
        for lines in _lines(listing):
            digest.update("".join(line for line, _ in lines).encode())
            for _, size in lines:
                shards.of(size)
        if not shards.videos:
            raise PipelineError(f"no objects to tokenise in {source.root} (see source.include)")
        head = plan_head(
            source, config, tokenizer=tokenizer, listing_digest=digest.hexdigest(), shards=shards
        )
    except BaseException:
        listing.close()
        raise
    return PlanDraft(head, listing, config)


def plan_head(
    source: Source, config: RunConfig, *, tokenizer: str, listing_digest: str, shards: Shards
) -> PlanHead:
    """The head of a plan whose objects have all been given their shard."""
    identity: dict[str, Any] = {
        "listing_digest": listing_digest,
        "analysis": config.analysis_identity(),
        "tokenizer": tokenizer,
        "format_version": FORMAT_VERSION,
    }
    return PlanHead(
        plan_id=plan_digest(**identity),
        source_root=source.root,
        videos=shards.videos,
        num_bytes=shards.num_bytes,
        shards=shards.count,
        split=config.output.split,
        shard_source_bytes=config.output.shard_source_bytes,
        extra_schema=extra_columns(source),
        **identity,
    )


def _lines(listing: SortedListing) -> Iterator[list[tuple[str, int]]]:
    """What the digest is made of, and the size of each object; many at a time."""

    def line(item: ListedObject) -> tuple[str, int]:
        uri, size, version, extra = item
        return f"{uri}\0{size}\0{version}\0{extra or '{}'}\n", size

    lines = map(line, listing)
    while part := list(islice(lines, 1024)):
        yield part


class Shards:
    """Gives objects, in their order, their shard, and adds them up.

    Attributes:
        count: Shards so far.
        videos: Objects so far.
        num_bytes: Their bytes.
    """

    def __init__(self, config: RunConfig) -> None:
        self._target_bytes = config.output.shard_source_bytes
        self._filled = 0
        self.count = 1
        self.videos = 0
        self.num_bytes = 0

    def of(self, size: int) -> int:
        """The shard of the next object."""
        if self._filled and self._filled + size > self._target_bytes:
            self.count, self._filled = self.count + 1, 0
        # An empty object still takes its place in the order, but no room.
        self._filled += size
        self.videos += 1
        self.num_bytes += size
        return self.count - 1


def extra_columns(source: Source) -> tuple[ExtraColumn, ...]:
    """The columns of a manifest that ride along, as a plan keeps them.

    Raises:
        PipelineError: If one has the name of a column of ours, or a type that rows cannot have.
    """
    try:
        return tuple(ExtraColumn.of(field) for field in source.extra_schema)
    except ValidationError as error:
        cause = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise PipelineError(f"manifest {source.url}: {cause}") from error


def _canonical(value: Any) -> str:  # noqa: ANN401  JSON values
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
