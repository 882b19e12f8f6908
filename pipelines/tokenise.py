"""Pass two: frozen statistics and stored analyses to token shards. No video, no GPU, no network.

Each shard is one independent task (`pipelines.shards`); here they are handed to Ray, and again
those that it lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray.data

from pipelines.errors import PipelineError
from pipelines.moved import adopt
from pipelines.observe import Progress
from pipelines.ray_stream import StreamEndedError, poll
from pipelines.receipt_store import ReceiptStore
from pipelines.shards import ShardSpec, tokenise_shard

__all__ = ["tokenise"]

_ROUNDS = 3

log = logging.getLogger(__name__)


def tokenise(
    spec: ShardSpec,
    progress: Progress,
    recompute: Callable[[Sequence[dict[str, Any]]], None] | None = None,
) -> None:
    """Write and commit every shard that has no commit record yet.

    Args:
        recompute: Makes the unit objects of some videos of the plan again (``second_pass =
            recompute``); they are deleted when their shards are committed. None: they are there.

    Raises:
        PipelineError: If a shard cannot be written: an analysis is gone or damaged, or the output
            holds other bytes under one of the names.
    """
    prefix = spec.commits
    done = {
        int(path.removeprefix(prefix + "/").removesuffix(".json"))
        for path, _ in spec.work.store.list(prefix)
    }
    progress.done = len(done)
    progress.start()
    waiting = [shard for shard in range(spec.plan.head.shards) if shard not in done]
    adopted = adopt(spec, waiting, progress)
    waiting = [shard for shard in waiting if shard not in adopted]
    if recompute is None:
        _rounds(waiting, spec, progress)
        return
    for shards, rows in _groups(waiting, spec):
        recompute(rows)
        _rounds(shards, spec, progress)
        receipts = ReceiptStore(spec.plan, spec.work.store, {row["block"] for row in rows})
        spec.work.store.delete_all(
            entry.path for receipt in receipts.read(rows) for entry in receipt.units
        )


def _groups(
    shards: Sequence[int], spec: ShardSpec
) -> Iterator[tuple[list[int], list[dict[str, Any]]]]:
    """Shards that together fill a wave, with their videos: so much is stored at a time."""
    group: list[int] = []
    rows: list[dict[str, Any]] = []
    for shard in shards:
        group.append(shard)
        rows += spec.plan.shard(shard)
        if len(rows) >= spec.config.runtime.wave_videos:
            yield group, rows
            group, rows = [], []
    if group:
        yield group, rows


def _rounds(waiting: Sequence[int], spec: ShardSpec, progress: Progress) -> None:
    ended: StreamEndedError | None = None
    for _ in range(_ROUNDS):
        if not waiting:
            return
        finished, ended = _run(waiting, spec, progress)
        waiting = [shard for shard in waiting if shard not in finished]
    if waiting:
        raise PipelineError(
            f"{len(waiting)} shards could not be written in {_ROUNDS} rounds (first: "
            f"{waiting[0]}); the last one ended with: {ended or 'no error'}"
        ) from ended


def _run(
    shards: Sequence[int], spec: ShardSpec, progress: Progress
) -> tuple[set[int], StreamEndedError | None]:
    """One round: the shards that are written, and why Ray gave up, if it did."""
    dataset = ray.data.from_arrow([pa.table({"shard": [shard]}) for shard in shards]).map_batches(
        _shard_task,  # pyright: ignore[reportArgumentType]  fn_kwargs are not typed
        fn_kwargs={"spec": spec},
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=1,
    )
    finished: set[int] = set()
    try:
        for batch in poll(dataset, progress):
            for row in batch.to_pylist():
                if row["error"]:
                    raise PipelineError(row["error"])
                finished.add(row["shard"])
                progress.advance(windows=row["clips"], tokens=row["tokens"])
                progress.item_done(0)
    except StreamEndedError as error:
        log.warning("Ray ended early, what is missing is run again: %s", error)
        return finished, error
    return finished, None


def _shard_task(batch: pa.Table, *, spec: ShardSpec) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for shard in batch["shard"].to_pylist():
        row = {"shard": shard, "clips": 0, "tokens": 0, "error": ""}
        try:
            commit = tokenise_shard(spec, shard)
            row |= {"clips": commit.totals.clips, "tokens": commit.totals.tokens}
        except (PipelineError, OSError) as error:
            # Carried as data: Ray would wrap it, and retry what no retry can mend.
            row["error"] = f"shard {shard}: {error}"
        rows.append(row)
    return pa.Table.from_pylist(rows)
