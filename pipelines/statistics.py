"""The border between the passes: all receipts folded into one frozen document.

Integer sums only, so neither the order of the receipts nor the number of workers can matter. The
document is written once; pass two refuses one that was made for another plan or tokenizer.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from pipelines.errors import AccountingError, IncompleteError, PlanMismatchError
from pipelines.plan import Plan
from pipelines.work import WorkFolder
from schemas.failures import FailureReason
from schemas.quarantine import encode_quarantine, quarantine_row
from schemas.statistics import ElboStatistics, StatisticsFold
from schemas.summary import AnalysisSummary
from schemas.versions import FormatError

__all__ = ["QUARANTINE", "STATISTICS", "SUMMARY", "freeze_statistics", "load_statistics"]

STATISTICS = "statistics.json"
SUMMARY = "summary.json"
QUARANTINE = "quarantine.parquet"

log = logging.getLogger(__name__)


def freeze_statistics(plan: Plan, work: WorkFolder) -> ElboStatistics:
    """Fold the receipts of every planned video, or return what was frozen before.

    Writes the statistics last: where they are, the summary and the quarantine are, too.

    Raises:
        IncompleteError: If a planned video has no receipt.
        AccountingError: If the receipts do not add up to the plan.
        PlanMismatchError: If the frozen document is of another plan or tokenizer.
    """
    if work.store.exists(STATISTICS):
        return load_statistics(plan, work)
    fold = StatisticsFold()
    reasons: Counter[FailureReason] = Counter()
    counts: Counter[str] = Counter()
    quarantined: list[dict[str, Any]] = []
    videos = (row["video_id"] for row in plan.rows())
    try:
        for receipt in work.receipts(videos):
            fold.add_video(receipt.bins)
            counts["listed"] += 1
            if receipt.failure is not None:
                reasons[receipt.failure.reason] += 1
                quarantined.append(quarantine_row(receipt))
                continue
            counts["analysed"] += 1
            counts["windows"] += receipt.windows
            counts["positions"] += receipt.tokens
            counts["decoded"] += receipt.num_frames_decoded
            counts["dropped"] += receipt.num_frames_dropped
    except FileNotFoundError as error:
        raise IncompleteError(
            f"{work.store.url}: not every planned video is analysed yet "
            f"(no {error.filename or error}); "
            "run `infotok analyse` again"
        ) from error
    head = plan.head
    statistics = fold.freeze(plan_id=head.plan_id, tokenizer=head.tokenizer, num_listed=head.videos)
    summary = AnalysisSummary(
        plan_id=head.plan_id,
        videos_listed=counts["listed"],
        videos_analysed=counts["analysed"],
        videos_quarantined=len(quarantined),
        windows=counts["windows"],
        positions=counts["positions"],
        num_frames_decoded=counts["decoded"],
        num_frames_dropped=counts["dropped"],
        source_bytes=head.num_bytes,
        reasons=dict(sorted(reasons.items())),
    )
    _check(summary, statistics, plan)
    # Replaced, not published: rows of a video that crashed may tell of another number of attempts.
    work.store.replace(QUARANTINE, encode_quarantine(quarantined))
    work.store.replace(SUMMARY, summary.to_bytes(indent=1))
    work.store.publish(STATISTICS, statistics.to_bytes(indent=1))
    return statistics


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
