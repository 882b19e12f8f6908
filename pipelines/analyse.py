"""Pass one: every video decoded once, every window encoded once, a receipt for each video.

```
plan rows without a receipt ──waves──▶ decode tasks ──uint8 units──▶ tokenizer actors
                                            │                             │ unit objects
                                            └──────── status rows ────────┴──▶ driver ──▶ receipts
```

The driver holds what is in flight, and one bit per video that says whether it is finished. A wave
ends when Ray is through with it or gives up; videos of the wave that have no receipt then are run
again, as long as that brings anything new. Whatever Ray reports, only receipts count. Behind the
waves, receipts of finished blocks are packed (`receipt_store`).
"""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import ray
import ray.data

from pipelines.block_keeper import BlockKeeper
from pipelines.errors import PipelineError, StorageError
from pipelines.id_set import IdSet
from pipelines.observe import Progress
from pipelines.plan import Plan
from pipelines.ray_stream import StreamEndedError, poll
from pipelines.receipt_store import ReceiptStore
from pipelines.receipts import ReceiptBuilder, lost_receipt
from pipelines.records import Status, table_to_statuses
from pipelines.spreading import block_bytes, decode_tasks, num_actors, num_decoders
from pipelines.stages import StageSpec, decode_videos
from pipelines.tokenizer_actor import AnalyseUnits
from pipelines.waves import waves
from pipelines.work import LeftoverUnits
from schemas.receipts import VideoReceipt

__all__ = ["analyse", "analyse_again"]

_WRITERS = 8

log = logging.getLogger(__name__)


def analyse(plan: Plan, spec: StageSpec, progress: Progress, only: IdSet | None = None) -> None:
    """Analyse every planned video that has no receipt yet.

    Args:
        only: Ids of the videos to look at; None for all.
        progress: Is told about every unit and video; its watchdog and stop flag are honoured.

    Raises:
        InterruptedRunError: If asked to stop; everything stored so far is kept.
        StalledError: If nothing moves for ``runtime.watchdog_s``.
        PipelineError: If Ray gives up again and again (actors that cannot start, no more nodes):
            nothing is wrong with the videos, so they are not set aside.
    """
    keeper = BlockKeeper(plan, spec.work)
    size = spec.config.runtime.wave_videos
    for wave in waves(plan, keeper.finished, only, progress, size):
        for row in _rounds(wave, _leftovers(wave, spec), spec, progress, keeper.put):
            keeper.put(lost_receipt(row, attempts=spec.config.limits.attempts))
            progress.item_done(row["size"], quarantined=True)
        keeper.wave_done(wave)


def analyse_again(
    plan: Plan, rows: Sequence[dict[str, Any]], spec: StageSpec, progress: Progress
) -> None:
    """Make the unit objects of analysed videos once more, and prove that they are the same.

    Args:
        rows: Of the plan; videos that were quarantined are passed over.

    Raises:
        PipelineError: If a video fails now, or gives other units than its receipt says.
    """
    receipts = ReceiptStore(plan, spec.work.store, {row["block"] for row in rows})
    before = {receipt.video_id: receipt for receipt in receipts.read(rows)}
    rows = [row for row in rows if before[row["video_id"]].status == "analysed"]

    def compare(receipt: VideoReceipt) -> None:
        if receipt.failure is not None:
            raise PipelineError(
                f"{receipt.uri} could not be analysed again: {receipt.failure.reason}, "
                f"{receipt.failure.detail}; what is written stays, and the same command goes on"
            )
        if receipt.units != before[receipt.video_id].units:
            raise PipelineError(
                f"{receipt.uri} was analysed again with another result; the source, the device or "
                "a library changed. Analyse into another work folder (--work)."
            )

    lost = _rounds(rows, _leftovers(rows, spec), spec, progress, compare)
    if lost:
        raise PipelineError(
            f"{lost[0]['uri']} and {len(lost) - 1} more could not be analysed again"
        )


def _leftovers(rows: Iterable[Mapping[str, Any]], spec: StageSpec) -> LeftoverUnits:
    return spec.work.leftover_units(sorted({row["block"] for row in rows}))


def _rounds(
    rows: Sequence[dict[str, Any]],
    leftovers: LeftoverUnits,
    spec: StageSpec,
    progress: Progress,
    finish: Callable[[VideoReceipt], None],
) -> list[dict[str, Any]]:
    """Waves over the same videos until each is finished; returns those that never were."""
    # One more than a video or unit has starts: then it was set aside by its own count.
    left = most = spec.config.limits.attempts + 1
    while rows:
        wave = _Wave(rows, leftovers, spec, progress)
        cause = wave.run(finish)
        rows = wave.lost()
        left = most if wave.moved else left - 1
        if left == 0 and cause is not None:
            raise PipelineError(f"Ray gave up {most} times without any result, last: {cause}")
        if left == 0:
            break
        if rows:
            why = cause or "no reason given"
            log.warning("%d videos have no result yet (%s); running them again", len(rows), why)
            leftovers = _leftovers(rows, spec)
    return list(rows)


class _Wave:
    """Some videos, run through Ray once.

    Attributes:
        moved: Whether anything came out that was not there before: a video, or a unit of one.
    """

    def __init__(
        self,
        rows: Sequence[dict[str, Any]],
        leftovers: LeftoverUnits,
        spec: StageSpec,
        progress: Progress,
    ) -> None:
        self._spec = spec
        self._progress = progress
        self._rows: dict[str, dict[str, Any]] = {}
        for row in rows:
            video = row["video_id"]
            stored = spec.work.stored_units(leftovers, video, row["version"])
            self._rows[video] = {**row, "stored_units": stored}
        self._builders: defaultdict[str, ReceiptBuilder] = defaultdict(ReceiptBuilder)
        self._closed: set[str] = set()
        self.moved = False

    def run(self, finish: Callable[[VideoReceipt], None]) -> StreamEndedError | None:
        """Hand each finished receipt to ``finish``; returns why Ray gave up, if it did."""
        cause: StreamEndedError | None = None
        with ThreadPoolExecutor(_WRITERS) as writers:
            pending: deque[Future[None]] = deque()
            try:
                for status in _statuses(list(self._rows.values()), self._spec, self._progress):
                    receipt = self._add(status)
                    if receipt is not None:
                        pending.append(writers.submit(finish, receipt))
                    while pending and pending[0].done():
                        # A store that takes no receipts is not to be found out at the end.
                        pending.popleft().result()
            except StreamEndedError as error:
                cause = error
            except (OSError, StorageError):
                writers.shutdown(wait=False, cancel_futures=True)
                raise
            for future in pending:
                future.result()
        return cause

    def lost(self) -> list[dict[str, Any]]:
        """The videos that have no receipt."""
        return [row for video, row in self._rows.items() if video not in self._closed]

    def _add(self, status: Status) -> VideoReceipt | None:
        video = status.video
        if video in self._closed:
            return None
        row = self._rows[video]
        if status.kind == "unit" and "entry" in status.payload:
            entry = status.payload["entry"]
            self._progress.advance(windows=entry["windows"], tokens=entry["tokens"])
            self.moved |= status.payload["unit_index"] not in row["stored_units"]
        self._builders[video].add(status)
        receipt = self._builders[video].receipt(video)
        if receipt is not None:
            self.moved = True
            self._closed.add(video)
            del self._builders[video]
            self._progress.item_done(row["size"], quarantined=receipt.status == "quarantined")
        return receipt


def _statuses(
    rows: Sequence[dict[str, Any]], spec: StageSpec, progress: Progress
) -> Iterator[Status]:
    """The Ray Data chain of pass one."""
    runtime = spec.config.runtime
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.target_max_block_size = block_bytes(spec.config)
    gpu = spec.device == "cuda"
    calls = runtime.calls_per_actor if gpu else 1
    with ray.data.DataContext.current(context):
        dataset = (
            ray.data.from_arrow(list(decode_tasks(rows, num_decoders(spec))))
            .map_batches(
                decode_videos,  # pyright: ignore[reportArgumentType]  fn_kwargs are not typed
                fn_kwargs={"spec": spec},
                batch_size=None,
                batch_format="pyarrow",
                compute=ray.data.TaskPoolStrategy(size=runtime.decoders),
                num_cpus=1,
            )
            # Not the public name of it, which wants a number of rows for a GPU: to cut a block into
            # them Ray copies the frames.
            .map_batches_internal(
                AnalyseUnits,
                fn_constructor_kwargs={"spec": spec},
                batch_size=runtime.units_per_call if runtime.units_per_call > 1 else None,
                batch_format="pyarrow",
                zero_copy_batch=True,
                compute=ray.data.ActorPoolStrategy(
                    size=num_actors(spec),
                    max_concurrent_calls_per_actor=calls,
                    # A few wait at the actor; more would hold frames that others could decode into.
                    max_tasks_in_flight_per_actor=calls + max(1, calls // 4),
                    enable_true_multi_threading=True,
                ),
                # No CPU share: actors that hold every CPU leave none to decode (ray#44687).
                num_cpus=0,
                num_gpus=1 / runtime.actors_per_gpu if gpu else 0,
            )
        )
        for batch in poll(dataset, progress):
            yield from table_to_statuses(batch)
