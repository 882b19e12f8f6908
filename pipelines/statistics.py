"""The border between the passes: all receipts folded into one frozen document.

Integer sums only, so neither the order of the receipts nor the number of workers can matter. The
document is written once; pass two refuses one that was made for another plan or tokenizer.

It may come from a sample of the videos (``statistics.sample``): then it is frozen as soon as these
are analysed, and says so itself.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

from pipelines.errors import AccountingError, IncompleteError, PlanMismatchError
from pipelines.id_set import IdSet
from pipelines.plan import Plan
from pipelines.receipt_store import ReceiptStore
from pipelines.work import WorkFolder
from schemas.failures import FailureReason
from schemas.quarantine import encode_quarantine, quarantine_row
from schemas.receipts import VideoReceipt
from schemas.statistics import (
    ElboStatistics,
    StatisticsFold,
    elbo_unit,
)
from schemas.summary import AnalysisSummary
from schemas.versions import FormatError

__all__ = [
    "QUARANTINE",
    "STATISTICS",
    "SUMMARY",
    "check_sample",
    "freeze_sample",
    "freeze_statistics",
    "load_statistics",
    "sample_videos",
]

STATISTICS = "statistics.json"
SUMMARY = "summary.json"
QUARANTINE = "quarantine.parquet"

_LEAST_SAMPLED = 2
"""Of fewer videos nobody can tell how much they differ."""

log = logging.getLogger(__name__)


def sample_videos(plan: Plan, fraction: float) -> IdSet | None:
    """The videos that statistics of a sample come from; None if all do.

    Chosen by their ids, which are hashes: neither the order of the listing nor the shards matter.
    """
    videos = plan.head.videos
    count = max(round(fraction * videos), _LEAST_SAMPLED)
    if count >= videos:
        return None
    ids = IdSet.of_columns(table["video_id"] for _, table in plan.columns("video_id"))
    return ids.lowest(count)


def check_sample(plan: Plan, work: WorkFolder, sample: IdSet | None) -> None:
    """Prove that statistics which are frozen already come from as many videos as are asked for now.

    Raises:
        PlanMismatchError: If not, or if they are of another plan or tokenizer.
    """
    if not work.store.exists(STATISTICS):
        return
    statistics = load_statistics(plan, work)
    asked = plan.head.videos if sample is None else len(sample)
    if statistics.num_sampled != asked:
        raise PlanMismatchError(
            f"{work.store.full(STATISTICS)} was frozen from {statistics.num_sampled} videos of "
            f"{statistics.num_listed}, this run asks for {asked} (statistics.sample); go on as "
            "before, or use another work folder (--work)"
        )


def freeze_sample(
    plan: Plan, work: WorkFolder, sample: IdSet, *, token_floor: float | None = None
) -> ElboStatistics:
    """Freeze the statistics of a sample, or return what was frozen before.

    Args:
        token_floor: See `config.RoutingConfig.token_floor`.

    Raises:
        AccountingError: If the tokens of a video were not counted so.
        IncompleteError: If a video of the sample has no receipt.
        PlanMismatchError: If the frozen document is of another plan or tokenizer.
    """
    if work.store.exists(STATISTICS):
        return load_statistics(plan, work)
    fold = StatisticsFold(token_floor)
    for receipt in _receipts(plan, work, plan.rows(plan.among(sample))):
        _count(fold, receipt)
    statistics = _frozen(fold, plan)
    work.store.publish(STATISTICS, statistics.to_bytes(indent=1))
    return statistics


def freeze_statistics(
    plan: Plan,
    work: WorkFolder,
    sample: IdSet | None = None,
    *,
    token_floor: float | None = None,
) -> ElboStatistics:
    """Fold the receipts of every planned video, or return what was frozen before.

    Where statistics and summary are, the quarantine is, too, and pass one is finished.

    Args:
        sample: The statistics come from these videos alone; everything else counts all.
        token_floor: See `config.RoutingConfig.token_floor`.

    Raises:
        IncompleteError: If a planned video has no receipt.
        AccountingError: If the receipts do not add up to the plan.
        PlanMismatchError: If the frozen document is of another plan or tokenizer.
    """
    if work.store.exists(STATISTICS) and work.store.exists(SUMMARY):
        return load_statistics(plan, work)
    fold, part = StatisticsFold(token_floor), StatisticsFold(token_floor)
    reasons: Counter[FailureReason] = Counter()
    counts: Counter[str] = Counter()
    quarantined: list[dict[str, Any]] = []
    for receipt in _receipts(plan, work, plan.rows()):
        _count(fold, receipt)
        if sample is not None and receipt.video_id in sample:
            _count(part, receipt)
        counts["listed"] += 1
        if receipt.failure is not None:
            reasons[receipt.failure.reason] += 1
            quarantined.append(quarantine_row(receipt))
        else:
            _tally(counts, receipt)
    summary = _summary(plan, counts, reasons)
    _check(summary, _frozen(fold, plan), plan)
    statistics = _frozen(fold if sample is None else part, plan)
    # Replaced, not published: rows of a video that crashed may tell of another number of attempts.
    work.store.replace(QUARANTINE, encode_quarantine(quarantined))
    work.store.replace(SUMMARY, summary.to_bytes(indent=1))
    work.store.publish(STATISTICS, statistics.to_bytes(indent=1))
    return statistics


def _tally(counts: Counter[str], receipt: VideoReceipt) -> None:
    counts["analysed"] += 1
    counts["windows"] += receipt.windows
    counts["positions"] += receipt.tokens
    counts["decoded"] += receipt.num_frames_decoded
    counts["dropped"] += receipt.num_frames_dropped


def _count(fold: StatisticsFold, receipt: VideoReceipt) -> None:
    try:
        fold.add_video(receipt.bins, receipt.token_bins)
    except ValueError as error:
        raise AccountingError(f"{receipt.uri}: {error}") from error


def _receipts(
    plan: Plan, work: WorkFolder, rows: Iterator[dict[str, Any]]
) -> Iterator[VideoReceipt]:
    try:
        yield from ReceiptStore(plan, work.store).read(rows)
    except FileNotFoundError as error:
        raise IncompleteError(
            f"{work.store.url}: not every planned video is analysed yet "
            f"(no {error.filename or error}); "
            "run `infotok analyse` again"
        ) from error


def _frozen(fold: StatisticsFold, plan: Plan) -> ElboStatistics:
    head = plan.head
    return fold.freeze(
        plan_id=head.plan_id,
        tokenizer=head.tokenizer,
        num_listed=head.videos,
        unit=elbo_unit(head.analysis.get("information", "elbo")),
    )


def _summary(plan: Plan, counts: Counter[str], reasons: Counter[FailureReason]) -> AnalysisSummary:
    head = plan.head
    return AnalysisSummary(
        plan_id=head.plan_id,
        videos_listed=counts["listed"],
        videos_analysed=counts["analysed"],
        videos_quarantined=reasons.total(),
        windows=counts["windows"],
        positions=counts["positions"],
        num_frames_decoded=counts["decoded"],
        num_frames_dropped=counts["dropped"],
        source_bytes=head.num_bytes,
        reasons=dict(sorted(reasons.items())),
    )


def load_statistics(plan: Plan, work: WorkFolder) -> ElboStatistics:
    """The frozen statistics of a plan.

    Raises:
        IncompleteError: If pass one is not finished.
        PlanMismatchError: If they are of another plan or tokenizer, or damaged.
    """
    try:
        statistics = ElboStatistics.from_bytes(work.store.read(STATISTICS))
    except FileNotFoundError as error:
        raise IncompleteError(
            f"{work.store.url} holds no statistics; finish pass one with `infotok analyse`"
        ) from error
    except FormatError as error:
        raise PlanMismatchError(f"{work.store.full(STATISTICS)} cannot be used: {error}") from error
    for name in ("plan_id", "tokenizer"):
        expected, found = getattr(plan.head, name), getattr(statistics, name)
        if expected != found:
            raise PlanMismatchError(
                f"{work.store.full(STATISTICS)} was measured with {name} {found[:16]}…, "
                f"the plan has {expected[:16]}…"
            )
    return statistics


def _check(summary: AnalysisSummary, statistics: ElboStatistics, plan: Plan) -> None:
    if summary.videos_listed != plan.head.videos or summary.videos_listed != (
        summary.videos_analysed + summary.videos_quarantined
    ):
        raise AccountingError(
            f"videos do not add up: {plan.head.videos} planned, {summary.videos_analysed} analysed "
            f"+ {summary.videos_quarantined} quarantined"
        )
    if (summary.windows, summary.positions) != (statistics.windows, statistics.tokens):
        raise AccountingError(
            f"windows do not add up: receipts {summary.windows} with {summary.positions} tokens, "
            f"statistics {statistics.windows} with {statistics.tokens}"
        )
