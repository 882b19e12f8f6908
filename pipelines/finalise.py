"""The last step: everything adds up, so the manifest may say that the corpus exists.

The manifest is written last of all; until then a reader sees data files and no corpus.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infotok_core.shape import TokenShape
from pipelines.card import dataset_card, report_html
from pipelines.errors import AccountingError, IncompleteError, PipelineError
from pipelines.garbage import collect_garbage
from pipelines.read_ahead import read_ahead
from pipelines.shards import ShardSpec
from pipelines.sinks.energon import energon_files
from pipelines.statistics import QUARANTINE, SUMMARY
from pipelines.storage import Store
from schemas.info import CorpusInfo, StatisticsSample, TokenizerInfo, VideoCounts
from schemas.layout import (
    CARD_PATH,
    INFO_PATH,
    MANIFEST_PATH,
    QUARANTINE_PATH,
    REPORT_PATH,
    STATISTICS_PATH,
)
from schemas.manifest import DataFile, ShardCommit, Totals, TotalsBuilder, encode_manifest
from schemas.quarantine import decode_quarantine, encode_quarantine
from schemas.statistics import ElboStatistics
from schemas.summary import AnalysisSummary
from schemas.versions import FormatError

__all__ = ["finalise", "publish_heads"]

_READERS = 16

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Commits:
    """All shards of a corpus, folded."""

    files: list[Any]
    videos: int
    totals: Totals


def finalise(spec: ShardSpec, statistics: ElboStatistics, tokenizer: TokenShape) -> dict[str, Any]:
    """Check the accounting, write what describes the corpus, and last its manifest.

    Returns:
        The summary of the run, JSON values only.

    Raises:
        IncompleteError: If a shard is not committed.
        AccountingError: If videos or windows do not add up; nothing is published then.
    """
    commits = _commits(spec)
    summary = AnalysisSummary.from_bytes(spec.work.store.read(SUMMARY))
    _check(commits, summary)
    info = _info(spec, statistics, summary, commits, tokenizer)
    quarantine = decode_quarantine(spec.work.store.read(QUARANTINE))
    publish_heads(spec.output, info, statistics, quarantine, commits.files)
    collect_garbage(spec.plan, spec.work.store, spec.output)
    return _summary(info, summary)


def publish_heads(
    output: Store,
    info: CorpusInfo,
    statistics: ElboStatistics,
    quarantine: Sequence[dict[str, Any]],
    files: Sequence[DataFile],
) -> None:
    """Write all that describes a corpus, over what is there, and last its manifest.

    Killed anywhere and called again it comes to the same.
    """
    output.replace(QUARANTINE_PATH, encode_quarantine(quarantine))
    output.replace(STATISTICS_PATH, statistics.to_bytes(indent=1))
    output.replace(INFO_PATH, info.to_bytes())
    output.replace(CARD_PATH, dataset_card(info, statistics).encode())
    output.replace(REPORT_PATH, report_html(info, statistics, quarantine).encode())
    if "webdataset" in info.formats:
        for path, data in energon_files(files):
            output.replace(path, data)
    output.replace(MANIFEST_PATH, encode_manifest(files))


def _commits(spec: ShardSpec) -> _Commits:
    totals = TotalsBuilder()
    files: list[Any] = []
    videos = 0
    shards = range(spec.plan.head.shards)
    for _, commit in read_ahead(shards, lambda shard: _commit(spec, shard), ahead=_READERS):
        files.extend(commit.files)
        totals.merge(commit.totals)
        videos += commit.videos
    return _Commits(files=files, videos=videos, totals=totals.freeze())


def _commit(spec: ShardSpec, shard: int) -> ShardCommit:
    path = spec.commit_path(shard)
    try:
        return ShardCommit.from_bytes(spec.work.store.read(path))
    except FileNotFoundError as error:
        raise IncompleteError(f"shard {shard} is not committed; run `infotok tokenise`") from error
    except FormatError as error:
        raise PipelineError(f"{spec.work.store.full(path)} is damaged: {error}") from error


def _check(commits: _Commits, summary: AnalysisSummary) -> None:
    pairs = {
        "videos": (summary.videos_analysed, commits.videos),
        "windows": (summary.windows, commits.totals.clips),
        "token positions": (summary.positions, commits.totals.cells),
    }
    wrong = [f"{name}: {a} analysed, {b} committed" for name, (a, b) in pairs.items() if a != b]
    if wrong:
        raise AccountingError("the corpus does not add up: " + "; ".join(wrong))


def _info(
    spec: ShardSpec,
    statistics: ElboStatistics,
    summary: AnalysisSummary,
    commits: _Commits,
    tokenizer: TokenShape,
) -> CorpusInfo:
    head, output = spec.plan.head, spec.config.output
    formats = ("parquet", "webdataset") if output.format == "both" else (output.format,)
    return CorpusInfo(
        source_root=head.source_root,
        plan_id=head.plan_id,
        tokens_key=spec.key,
        tokenizer=TokenizerInfo(
            fingerprint=head.tokenizer,
            name=spec.config.tokenizer.checkpoint,
            num_codes=spec.num_codes,
            spatial_compression=tokenizer.spatial_compression,
            temporal_compression=tokenizer.temporal_compression,
        ),
        window=head.analysis["window"],
        space=head.analysis["space"],
        routing=spec.rule,
        elbo_unit=statistics.unit,
        statistics_digest=statistics.digest,
        statistics_sample=StatisticsSample.of(statistics) if spec.rule.is_measured else None,
        split=output.split,
        formats=formats,
        licence=output.licence,
        videos=VideoCounts(
            listed=summary.videos_listed,
            committed=commits.videos,
            quarantined=summary.videos_quarantined,
        ),
        totals=commits.totals,
        files=len(commits.files),
        num_bytes=sum(file.bytes for file in commits.files),
        reasons=summary.reasons,
        extra_columns={column.name: column.type for column in head.extra_schema},
    )


def _summary(info: CorpusInfo, summary: AnalysisSummary) -> dict[str, Any]:
    return {
        "videos_listed": info.videos.listed,
        "videos_committed": info.videos.committed,
        "videos_quarantined": info.videos.quarantined,
        "quarantine_reasons": {str(reason): count for reason, count in info.reasons.items()},
        "windows": info.totals.clips,
        "tokens": info.totals.tokens,
        "tokens_at_full_rate": info.totals.cells,
        "rate_asked": info.routing.target,
        "rate_realised": info.realised_rate,
        "rate_from_sample": info.statistics_sample is not None,
        "bpp16": info.bpp16,
        "files": info.files,
        "bytes": info.num_bytes,
        "source_bytes": summary.source_bytes,
        "frames_decoded": summary.num_frames_decoded,
        "frames_dropped": summary.num_frames_dropped,
        "tokenizer": info.tokenizer.fingerprint,
    }
