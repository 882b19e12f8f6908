"""The plan: one sorted listing of the source, cut into shards before any video is opened.

The plan fixes every name and every order of the run, from the listing alone. It is written once;
a resume reads it back and compares it with the source, the configuration and the tokenizer of the
moment, so that nothing changed is ever mixed with something older.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.config import RunConfig
from pipelines.errors import IncompleteError, PipelineError, PlanMismatchError
from pipelines.sources import Source, SourceObject
from pipelines.storage import Store
from schemas.ids import video_id
from schemas.plan import PLAN_SCHEMA, ExtraColumn, PlanHead, plan_digest
from schemas.versions import FORMAT_VERSION, FormatError

__all__ = ["Plan", "ensure_plan", "load_plan", "make_plan"]

_TABLE = "plan.parquet"
_HEAD = "plan.json"
_ROWS_PER_GROUP = 16_384
_NAMED = 5

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A stored plan: its head in memory, its rows read from the store as they are needed."""

    head: PlanHead
    work: Store

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every planned video, in plan order; one row group in memory at a time."""
        file = pq.ParquetFile(io.BytesIO(self.work.read(_TABLE)))
        for batch in file.iter_batches(_ROWS_PER_GROUP):
            yield from batch.to_pylist()

    def shard(self, shard: int) -> list[dict[str, Any]]:
        """The videos of one shard, in plan order."""
        data = io.BytesIO(self.work.read(_TABLE))
        return pq.read_table(data, filters=[("shard", "=", shard)]).to_pylist()


def make_plan(source: Source, config: RunConfig, *, tokenizer: str) -> tuple[PlanHead, pa.Table]:
    """List, sort, shard. Opens no video.

    Args:
        tokenizer: Fingerprint of the tokenizer.

    Raises:
        PipelineError: If nothing is listed, or a manifest lists a URI twice.
    """
    objects = sorted(source.objects, key=lambda item: item.uri)
    if not objects:
        raise PipelineError(f"no objects to tokenise in {source.root} (see source.include)")
    for before, item in itertools.pairwise(objects):
        if before.uri == item.uri:
            raise PipelineError(f"the input lists {item.uri} more than once")
    shards = _shards(objects, config.output.shard_source_bytes)
    table = pa.table(
        {
            "uri": [item.uri for item in objects],
            "video_id": [video_id(item.uri) for item in objects],
            "size": [item.size for item in objects],
            "version": [item.version for item in objects],
            "shard": shards,
            "extra": [_canonical(item.extra) if item.extra else None for item in objects],
        },
        schema=PLAN_SCHEMA,
    )
    listing = hashlib.sha256()
    for item in objects:
        extra = _canonical(item.extra) if item.extra else "{}"
        line = f"{item.uri}\0{item.size}\0{item.version}\0{extra}\n"
        listing.update(line.encode())
    identity: dict[str, Any] = {
        "listing_digest": listing.hexdigest(),
        "analysis": config.analysis_identity(),
        "tokenizer": tokenizer,
        "format_version": FORMAT_VERSION,
    }
    head = PlanHead(
        plan_id=plan_digest(**identity),
        source_root=source.root,
        videos=len(objects),
        num_bytes=sum(item.size for item in objects),
        shards=shards[-1] + 1,
        split=config.output.split,
        shard_source_bytes=config.output.shard_source_bytes,
        extra_schema=_extra_columns(source.extra_schema),
        **identity,
    )
    return head, table


def ensure_plan(source: Source, config: RunConfig, *, tokenizer: str, work: Store) -> Plan:
    """Make the plan, or find the one that is there and prove that it is the same.

    Objects that were added to the source since are named in a warning and left out.

    Raises:
        PlanMismatchError: If an object changed or vanished, or the configuration or the tokenizer
            is another; the message says what.
    """
    head, table = make_plan(source, config, tokenizer=tokenizer)
    if not work.exists(_HEAD):
        sink = io.BytesIO()
        pq.write_table(table, sink, row_group_size=_ROWS_PER_GROUP, compression="zstd")
        work.publish(_TABLE, sink.getvalue())
        work.publish(_HEAD, head.model_dump_json(indent=1).encode())
        return Plan(head=head, work=work)
    plan = load_plan(work)
    if (plan.head.plan_id, plan.head.shard_source_bytes) != (head.plan_id, head.shard_source_bytes):
        _explain(plan, head, table)
    return plan


def load_plan(work: Store) -> Plan:
    """The plan of a work folder.

    Raises:
        IncompleteError: If there is none.
        PlanMismatchError: If it is damaged, or was written by another version of this program.
    """
    try:
        data = work.read(_HEAD)
    except FileNotFoundError as error:
        raise IncompleteError(
            f"{work.url} holds no plan; make one with `infotok plan INPUT OUTPUT`"
        ) from error
    try:
        return Plan(head=PlanHead.from_bytes(data), work=work)
    except FormatError as error:
        raise PlanMismatchError(f"{work.full(_HEAD)} cannot be used: {error}") from error


def _explain(plan: Plan, head: PlanHead, table: pa.Table) -> None:
    changes = _differences("", plan.head.analysis, head.analysis)
    if plan.head.tokenizer != head.tokenizer:
        changes.append(f"tokenizer: was {plan.head.tokenizer[:16]}…, is {head.tokenizer[:16]}…")
    if plan.head.shard_source_bytes != head.shard_source_bytes:
        was, now = plan.head.shard_source_bytes, head.shard_source_bytes
        changes.append(f"output.shard_source_bytes: was {was}, is {now}")
    added: list[str] = []
    if plan.head.listing_digest != head.listing_digest:
        before = {row["uri"]: (row["size"], row["version"], row["extra"]) for row in plan.rows()}
        for row in table.to_pylist():
            was = before.pop(row["uri"], None)
            if was is None:
                added.append(row["uri"])
            elif was != (row["size"], row["version"], row["extra"]):
                changes.append(f"{row['uri']}: changed since it was planned")
        changes += [f"{uri}: gone from the source" for uri in before]
    if changes:
        shown = "\n  ".join(changes[:_NAMED])
        more = f"\n  … and {len(changes) - _NAMED} more" if len(changes) > _NAMED else ""
        raise PlanMismatchError(
            f"{plan.work.url} belongs to another run:\n  {shown}{more}\n"
            "Use another work folder (--work), or restore what changed."
        )
    log.warning(
        "%d objects were added to the source after it was planned and are not part of this run: %s",
        len(added), ", ".join(added[:_NAMED]),
    )  # fmt: skip


def _differences(prefix: str, was: Any, now: Any) -> list[str]:  # noqa: ANN401  JSON values
    if isinstance(was, dict) and isinstance(now, dict):
        return [
            line
            for key in sorted(was.keys() | now.keys())
            for line in _differences(f"{prefix}.{key}".lstrip("."), was.get(key), now.get(key))
        ]
    return [] if was == now else [f"{prefix}: was {was}, is {now}"]


def _shards(objects: list[SourceObject], target_bytes: int) -> list[int]:
    shards: list[int] = []
    shard = filled = 0
    for item in objects:
        if filled and filled + item.size > target_bytes:
            shard, filled = shard + 1, 0
        shards.append(shard)
        # An empty object still takes its place in the order, but no room.
        filled += item.size
    return shards


def _extra_columns(schema: pa.Schema) -> tuple[ExtraColumn, ...]:
    try:
        return tuple(ExtraColumn.of(field) for field in schema)
    except ValueError as error:
        raise PipelineError(f"manifest: {error}") from error


def _canonical(value: Any) -> str:  # noqa: ANN401  JSON values
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
