# pyright: standard
# (pyarrow ships no stubs: strict would report each of its names)
"""What a run is about: which objects, in which shards, read by which tokenizer.

``plan.parquet`` holds a row per video, ``plan.json`` the head. Nothing in it comes from opening a
video.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

import pyarrow as pa
from pydantic import Field, model_validator

from schemas.documents import Document, Part
from schemas.ids import digest
from schemas.tables import not_null, nullable
from schemas.tokens import TOKEN_SCHEMA

__all__ = ["BLOCK_VIDEOS", "PLAN_SCHEMA", "ExtraColumn", "PlanHead", "plan_digest"]

BLOCK_VIDEOS = 4096
"""Consecutive rows of a plan whose receipts become one object, and whose units share a folder."""

PLAN_SCHEMA = pa.schema(
    [
        not_null("uri", pa.string(), "canonical path relative to the source root (ids.quote_path)"),
        not_null("video_id", pa.string(), "SHA-256 of uri, first 16 bytes, hex"),
        not_null("size", pa.int64(), "bytes"),
        not_null("version", pa.string(), "ETag, or size and modification time"),
        not_null("shard", pa.int32(), "shard its rows go to"),
        nullable("extra", pa.string(), "further manifest columns as a JSON object"),
    ]
)

_Count = Annotated[int, Field(ge=0)]


class ExtraColumn(Part):
    """A manifest column that rides along into the token rows; always nullable.

    Attributes:
        name: Not one of `tokens.TOKEN_SCHEMA`.
        type: Arrow's name of a number, boolean or string type: ``int64``, ``double``, ``string``.
    """

    name: str
    type: str

    @classmethod
    def of(cls, field: pa.Field) -> ExtraColumn:
        """The stored form of an Arrow field."""
        return cls(name=field.name, type=str(field.type))

    def field(self) -> pa.Field:
        """The Arrow field."""
        return pa.field(self.name, pa.type_for_alias(self.type))

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name in TOKEN_SCHEMA.names:
            raise ValueError(f"extra column {self.name!r} has the name of one of ours: rename it")
        pa.type_for_alias(self.type)
        return self


class PlanHead(Document):
    """The identity of a run, and what it adds up to.

    Attributes:
        plan_id: `plan_digest` of what decides the content.
        source_root: Where the URIs are relative to; not part of the identity.
        listing_digest: SHA-256 over the listed objects and their versions.
        analysis: `RunConfig.analysis_identity`: policies that decide what pass one stores.
        tokenizer: Fingerprint.
        videos: Rows of ``plan.parquet``.
        num_bytes: Their source bytes.
        shards: How many.
        split: First part of every data file's name.
        shard_source_bytes: Target of source bytes per shard.
        extra_schema: Manifest columns that ride along.
    """

    plan_id: str
    source_root: str
    listing_digest: str
    analysis: dict[str, Any]
    tokenizer: str
    videos: _Count
    num_bytes: _Count
    shards: _Count
    split: str
    shard_source_bytes: _Count
    extra_schema: tuple[ExtraColumn, ...] = ()

    def extra_fields(self) -> list[pa.Field]:
        """The extra columns for `tokens.rows_to_table`."""
        return [column.field() for column in self.extra_schema]


def plan_digest(
    *, listing_digest: str, analysis: dict[str, Any], tokenizer: str, format_version: int
) -> str:
    """``plan_id``: SHA-256 over everything that decides what pass one stores."""
    return digest(
        {
            "listing": listing_digest,
            "analysis": analysis,
            "tokenizer": tokenizer,
            "format_version": format_version,
        }
    )
