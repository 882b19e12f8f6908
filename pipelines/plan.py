"""The plan: one sorted listing of the source, cut into shards before any video is opened.

The plan fixes every name and every order of the run, from the listing alone. It is written once;
a resume reads it back and compares it with the source, the configuration and the tokenizer of the
moment, so that nothing changed is ever mixed with something older.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.changes import changes
from pipelines.config import RunConfig
from pipelines.errors import ConflictError, IncompleteError, PlanMismatchError
from pipelines.id_set import IdSet
from pipelines.plan_draft import PLAN_GROUP_ROWS, PlanDraft, draft_plan
from pipelines.sorted_listing import ListedObject
from pipelines.sources import Source
from pipelines.storage import Store
from schemas.plan import BLOCK_VIDEOS, PLAN_SCHEMA, PlanHead
from schemas.versions import FormatError

__all__ = ["Plan", "ensure_plan", "known_plan", "load_plan"]

_TABLE = "plan.parquet"
_HEAD = "plan.json"
_NAMED = 5
_SHARD = PLAN_SCHEMA.get_field_index("shard")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A stored plan: its head in memory, its rows read from the store as they are needed.

    Rows are dicts of the columns of `PLAN_SCHEMA`, and ``block``: see `BLOCK_VIDEOS`.
    """

    head: PlanHead
    work: Store

    @property
    def blocks(self) -> int:
        """How many blocks; the last one may be short."""
        return -(-self.head.videos // BLOCK_VIDEOS)

    def block_videos(self, block: int) -> int:
        """Videos of a block."""
        return min(BLOCK_VIDEOS, self.head.videos - block * BLOCK_VIDEOS)

    def rows(self, wanted: NDArray[np.bool_] | None = None) -> Iterator[dict[str, Any]]:
        """Planned videos, in plan order; one row group in memory at a time.

        Args:
            wanted: One truth value per video; a group of rows without any is not read. None: all.
        """
        with self._opened() as file:
            for group in range(file.num_row_groups):
                start = group * PLAN_GROUP_ROWS
                part = None if wanted is None else wanted[start : start + PLAN_GROUP_ROWS]
                if part is None or part.any():
                    yield from _rows(file.read_row_group(group), start, part)

    def columns(
        self, *names: str, wanted: NDArray[np.bool_] | None = None
    ) -> Iterator[tuple[int, pa.Table]]:
        """Some columns in plan order: the number of the first row, and some thousand rows.

        Args:
            wanted: One truth value per video; a table without any is left out. None: all.
        """
        with self._opened() as file:
            for group in range(file.num_row_groups):
                start = group * PLAN_GROUP_ROWS
                if wanted is None or wanted[start : start + PLAN_GROUP_ROWS].any():
                    yield start, file.read_row_group(group, columns=list(names))

    def among(self, ids: IdSet | None) -> NDArray[np.bool_]:
        """For each video, whether it is one of these; None: all are."""
        if ids is None:
            return np.ones(self.head.videos, bool)
        found = np.zeros(self.head.videos, bool)
        for start, table in self.columns("video_id"):
            found[start : start + table.num_rows] = ids.among(table["video_id"])
        return found

    def block(self, block: int) -> list[dict[str, Any]]:
        """The videos of a block, in plan order; no other rows are read than those of its group."""
        first = block * BLOCK_VIDEOS
        wanted = np.zeros(self.head.videos, bool)
        wanted[first : first + BLOCK_VIDEOS] = True
        return list(self.rows(wanted))

    def shard(self, shard: int) -> list[dict[str, Any]]:
        """The videos of one shard, in plan order; only the row groups that hold it are read."""
        found: list[dict[str, Any]] = []
        with self._opened() as file:
            for group in range(file.num_row_groups):
                spread = file.metadata.row_group(group).column(_SHARD).statistics
                if spread.min <= shard <= spread.max:
                    table = file.read_row_group(group)
                    inside = table["shard"].to_numpy() == shard
                    found += _rows(table, group * PLAN_GROUP_ROWS, inside)
        return found

    @contextlib.contextmanager
    def _opened(self) -> Generator[pq.ParquetFile]:
        with self.work.open(_TABLE) as data, pq.ParquetFile(data, pre_buffer=True) as file:
            yield file


def _rows(
    table: pa.Table, start: int, wanted: NDArray[np.bool_] | None
) -> Iterator[dict[str, Any]]:
    places = np.arange(table.num_rows) if wanted is None else np.flatnonzero(wanted)
    if len(places) < table.num_rows:
        table = table.take(places)
    for place, row in zip(places.tolist(), table.to_pylist(), strict=True):
        row["block"] = (start + place) // BLOCK_VIDEOS
        yield row


def ensure_plan(source: Source, config: RunConfig, *, tokenizer: str, work: Store) -> Plan:
    """Make the plan, or find the one that is there and prove that it is the same.

    Objects that were added to the source since are named in a warning and left out.

    Raises:
        PlanMismatchError: If an object changed or vanished, or the configuration or the tokenizer
            is another; the message says what.
    """
    with draft_plan(source, config, tokenizer=tokenizer) as draft:
        if not work.exists(_HEAD):
            _publish_table(work, draft)
            work.publish(_HEAD, draft.head.model_dump_json(indent=1).encode())
            return Plan(head=draft.head, work=work)
        plan = load_plan(work)
        was, now = plan.head, draft.head
        if (was.plan_id, was.shard_source_bytes) != (now.plan_id, now.shard_source_bytes):
            _explain(plan, draft)
        return plan


def _publish_table(work: Store, draft: PlanDraft) -> None:
    try:
        work.publish(_TABLE, draft.parquet())
    except ConflictError as error:
        # Or another start is at it now, from another listing: then its head comes in a moment.
        raise ConflictError(
            f"{error}; it is half a plan, as a start leaves it that is killed in between. If no "
            f"other run starts here now, delete {work.full(_TABLE)}"
        ) from error


def known_plan(source: Source, config: RunConfig, *, tokenizer: str, work: Store) -> Plan | None:
    """The plan that is there, if there is one, without listing the source.

    A video that changed since is found when it is decoded, and set aside; one that is analysed
    already is not looked at again.

    Raises:
        PlanMismatchError: If source, configuration or tokenizer are not those of the plan.
    """
    if not work.exists(_HEAD):
        return None
    plan = load_plan(work)
    differing = _setting_changes(
        plan.head, config.analysis_identity(), tokenizer, config.output.shard_source_bytes
    )
    if plan.head.source_root != source.root:
        differing.append(f"source: was {plan.head.source_root}, is {source.root}")
    if differing:
        raise _mismatch(plan, differing, len(differing))
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


def _explain(plan: Plan, draft: PlanDraft) -> None:
    head = draft.head
    differing = _setting_changes(plan.head, head.analysis, head.tokenizer, head.shard_source_bytes)
    count, added, num_added = len(differing), list[str](), 0
    if plan.head.listing_digest != head.listing_digest:
        for uri, was, now in _joined(plan, draft):
            if was is None:
                num_added += 1
                added += [uri] if len(added) < _NAMED else []
            elif was != now:
                count += 1
                what = "gone from the source" if now is None else "changed since it was planned"
                differing += [f"{uri}: {what}"] if len(differing) < _NAMED else []
    if differing:
        raise _mismatch(plan, differing, count)
    log.warning(
        "%d objects were added to the source after it was planned and are not part of this run: %s",
        num_added, ", ".join(added),
    )  # fmt: skip


def _mismatch(plan: Plan, differing: list[str], count: int) -> PlanMismatchError:
    shown = "\n  ".join(differing[:_NAMED])
    more = f"\n  … and {count - _NAMED} more" if count > _NAMED else ""
    return PlanMismatchError(
        f"{plan.work.url} belongs to another run:\n  {shown}{more}\n"
        "Use another work folder (--work), or restore what changed."
    )


def _setting_changes(
    was: PlanHead, analysis: dict[str, Any], tokenizer: str, shard_source_bytes: int
) -> list[str]:
    found = changes(was.analysis, analysis)
    if was.tokenizer != tokenizer:
        found.append(f"tokenizer: was {was.tokenizer[:16]}…, is {tokenizer[:16]}…")
    if was.shard_source_bytes != shard_source_bytes:
        found.append(
            f"output.shard_source_bytes: was {was.shard_source_bytes}, is {shard_source_bytes}"
        )
    return found


def _joined(
    plan: Plan, draft: PlanDraft
) -> Iterator[tuple[str, ListedObject | None, ListedObject | None]]:
    """Each URI with what was planned and what is listed; both come in the order of their URIs."""
    planned: Iterator[ListedObject] = (
        (row["uri"], row["size"], row["version"], row["extra"]) for row in plan.rows()
    )
    listed = iter(draft.listing)
    was, now = next(planned, None), next(listed, None)
    while was is not None or now is not None:
        uri = min(item[0] for item in (was, now) if item is not None)
        mine = was if was is not None and was[0] == uri else None
        theirs = now if now is not None and now[0] == uri else None
        yield uri, mine, theirs
        was = next(planned, None) if mine is not None else was
        now = next(listed, None) if theirs is not None else now
