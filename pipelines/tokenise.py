"""Pass two: frozen statistics and stored analyses to token shards. No video, no GPU, no network.

Each shard is one independent task (`pipelines.shards`); here they are handed to Ray, and again
those that it lost. Ray retries a task whose process died, without end: so its starts are counted,
as those of videos are in pass one, and a shard that ends every process is left out, and told.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
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
            holds other bytes under one of the names; or, when the others are written, if one ended
            its process ``limits.attempts`` times.
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
    deadly: dict[int, str] = {}
    for _ in range(_ROUNDS):
        if not waiting:
            break
        finished, ended = _run(waiting, spec, progress, deadly)
        waiting = [shard for shard in waiting if shard not in finished and shard not in deadly]
    if deadly:
        raise PipelineError(_told(deadly, spec.config.limits.attempts))
    if waiting:
        raise PipelineError(
            f"{len(waiting)} shards could not be written in {_ROUNDS} rounds (first: "
            f"{waiting[0]}); the last one ended with: {ended or 'no error'}"
        ) from ended


def _told(deadly: Mapping[int, str], attempts: int) -> str:
    first = min(deadly)
    more = f" (and so did {len(deadly) - 1} more)" if len(deadly) > 1 else ""
    last = f", last while {deadly[first]}" if deadly[first] else ""
    return (
        f"shard {first} ended its worker process {attempts} times (limits.attempts){last}{more}: "
        "out of memory, or a crash in a library, of which Ray may say more above; what is written "
        "stays, and the same command tries again what is missing (with more memory for each core, "
        "if that was it)"
    )


def _run(
    shards: Sequence[int], spec: ShardSpec, progress: Progress, deadly: dict[int, str]
) -> tuple[set[int], StreamEndedError | None]:
    """One round: the shards that are written, and why Ray gave up, if it did.

    Those that end their processes go into ``deadly``, with what they were last at.
    """
    dataset = ray.data.from_arrow([pa.table({"shard": [shard]}) for shard in shards]).map_batches(
        _shard_task,  # pyright: ignore[reportArgumentType]  fn_kwargs are not typed
        fn_kwargs={"spec": spec, "run_id": progress.control.run_id},
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
                if row["deadly"]:
                    deadly[row["shard"]] = row["last"]
                    progress.advance()
                    continue
                finished.add(row["shard"])
                progress.advance(windows=row["clips"], tokens=row["tokens"])
                progress.item_done(0)
    except StreamEndedError as error:
        log.warning("Ray ended early, what is missing is run again: %s", error)
        return finished, error
    return finished, None


def _shard_task(batch: pa.Table, *, spec: ShardSpec, run_id: str) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for shard in batch["shard"].to_pylist():
        row = {"shard": shard, "clips": 0, "tokens": 0, "deadly": False, "last": "", "error": ""}
        try:
            row |= _started(spec, shard, run_id)
        except (PipelineError, OSError) as error:
            # Carried as data: Ray would wrap it, and retry what no retry can mend.
            row["error"] = f"shard {shard}: {error}"
        rows.append(row)
    return pa.Table.from_pylist(rows)


def _started(spec: ShardSpec, shard: int, run_id: str) -> dict[str, Any]:
    work, limit = spec.work, spec.config.limits.attempts
    name = spec.commit_path(shard).removesuffix(".json")
    start = work.claim(name, run_id=run_id, limit=limit)
    if start > limit:
        return {"deadly": True, "last": work.noted(name, run_id=run_id, start=limit)}

    def watch(text: str) -> None:
        # A request for each video, so only when it may be the last that is heard of it.
        if start == limit:
            work.note(name, run_id=run_id, start=start, text=text)

    try:
        commit = tokenise_shard(spec, shard, watch=watch)
    finally:
        # Nobody died, whatever it came to.
        work.release(name, run_id=run_id, starts=start)
    return {"clips": commit.totals.clips, "tokens": commit.totals.tokens}
