"""A small, real corpus on disk, made by our own writers: what validation, card and inspect read."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from strategies import FACTS, TOKENIZER, analysis

from pipelines.card import dataset_card, report_html
from pipelines.sinks.energon import INDEX_SUFFIX, energon_files, energon_tar_index
from pipelines.sinks.parquet import parquet_bytes
from pipelines.sinks.webdataset import tar_bytes
from pipelines.storage import Store
from schemas.failures import FailureReason, FailureStage
from schemas.ids import video_id
from schemas.info import CorpusInfo, TokenizerInfo, VideoCounts
from schemas.layout import (
    CARD_PATH,
    INFO_PATH,
    MANIFEST_PATH,
    QUARANTINE_PATH,
    REPORT_PATH,
    STATISTICS_PATH,
    data_path,
)
from schemas.manifest import DataFile, Totals, TotalsBuilder, encode_manifest
from schemas.quarantine import encode_quarantine, quarantine_row
from schemas.receipts import FailureRecord, VideoReceipt
from schemas.statistics import (
    ElboAccumulator,
    ElboBins,
    ElboStatistics,
    RateRule,
    StatisticsFold,
    num_tokens,
    solve_rule,
)
from schemas.tokens import rows_to_table, token_row
from schemas.units import window_sum
from schemas.windows import WindowAnalysis

GRID = (3, 8, 8)
"""Of 9 frames of 64 x 64 pixels, 4 x 8 x 8 compression."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What was written, beside the files themselves."""

    store: Store
    info: CorpusInfo
    statistics: ElboStatistics
    files: tuple[DataFile, ...]
    quarantine: list[dict[str, Any]]


def video_windows(uri: str, count: int) -> list[WindowAnalysis]:
    """Windows of one video; each video has its own level of information."""
    seed = int(video_id(uri)[:8], 16)
    return [analysis(seed, window_index=index, shape=GRID) for index in range(count)]


def keep(window: WindowAnalysis, rule: RateRule) -> np.ndarray:
    """The most informative positions, ties to the lower index."""
    flat = window.information.reshape(-1)
    count = num_tokens(rule.rate(window_sum(flat), flat.size), flat.size)
    mask = np.zeros(flat.size, bool)
    mask[np.argsort(-flat, kind="stable")[:count]] = True
    return mask.reshape(window.information.shape)


def rows_of(uri: str, windows: Sequence[WindowAnalysis], rule: RateRule) -> list[dict[str, Any]]:
    """The token rows of one video."""
    return [
        token_row(
            window,
            keep(window, rule),
            facts=FACTS,
            video=video_id(uri),
            source=uri,
            tokenizer=TOKENIZER,
            rate_target=rule.rate(window_sum(window.information), window.information.size),
        )
        for window in windows
    ]


def build_corpus(
    root: Path, *, formats: tuple[str, ...] = ("parquet", "webdataset"), num_videos: int = 6
) -> Corpus:
    """Write a corpus of two shards below ``root``."""
    store = Store(str(root))
    videos = {f"videos/{index}.mp4": index % 4 + 1 for index in range(num_videos)}
    windows = {uri: video_windows(uri, count) for uri, count in videos.items()}
    quarantine = [_set_aside("broken & <b>.mp4", FailureReason.TRUNCATED)]
    statistics = _statistics(windows, num_quarantined=len(quarantine))
    rule = solve_rule(statistics.bins, rate=0.5, min_rate=1 / 16)
    files: list[DataFile] = []
    totals = TotalsBuilder()
    for shard, uris in enumerate((list(videos)[::2], list(videos)[1::2])):
        rows = [row for uri in uris for row in rows_of(uri, windows[uri], rule)]
        for row in rows:
            totals.add(row)
        files += _write_files(store, rows, shard, formats)
    info = _info(statistics, rule, totals.freeze(), files, formats, quarantine)
    corpus = Corpus(
        store=store, info=info, statistics=statistics, files=tuple(files), quarantine=quarantine
    )
    _write_heads(corpus)
    return corpus


def _write_files(
    store: Store, rows: list[dict[str, Any]], shard: int, formats: tuple[str, ...]
) -> list[DataFile]:
    files: list[DataFile] = []
    for kind in formats:
        path = data_path(kind, split="train", shard=shard, part=0)
        if kind == "parquet":
            data = parquet_bytes(
                rows_to_table(rows),
                encoding="byte_stream_split",
                row_group_rows=4,
                tokenizer=TOKENIZER,
            )
        else:
            data = tar_bytes(rows)
            store.publish(path + INDEX_SUFFIX, energon_tar_index(data))
        store.publish(path, data)
        files.append(DataFile.of(path, data, rows=rows, shard=shard, format=kind))
    return files


def _write_heads(corpus: Corpus) -> None:
    store = corpus.store
    store.replace(QUARANTINE_PATH, encode_quarantine(corpus.quarantine))
    store.replace(STATISTICS_PATH, corpus.statistics.to_bytes())
    store.replace(INFO_PATH, corpus.info.to_bytes())
    store.replace(CARD_PATH, dataset_card(corpus.info, corpus.statistics).encode())
    page = report_html(corpus.info, corpus.statistics, corpus.quarantine)
    store.replace(REPORT_PATH, page.encode())
    for path, data in energon_files(corpus.files):
        store.replace(path, data)
    store.replace(MANIFEST_PATH, encode_manifest(corpus.files))


def _set_aside(uri: str, reason: FailureReason) -> dict[str, Any]:
    failure = FailureRecord(reason=reason, stage=FailureStage.OPEN, detail="no <moov>")
    receipt = VideoReceipt(
        video_id=video_id(uri), uri=uri, version="1-2", status="quarantined", failure=failure
    )
    return quarantine_row(receipt)


def _statistics(
    windows: dict[str, list[WindowAnalysis]], *, num_quarantined: int
) -> ElboStatistics:
    fold = StatisticsFold()
    for video in windows.values():
        bins = ElboAccumulator()
        for window in video:
            bins.add(window_sum(window.information), window.information.size)
        fold.add_video(bins.freeze())
    for _ in range(num_quarantined):
        fold.add_video(ElboBins.empty())
    listed = len(windows) + num_quarantined
    return fold.freeze(plan_id="p" * 64, tokenizer=TOKENIZER, num_listed=listed)


def _info(
    statistics: ElboStatistics,
    rule: RateRule,
    totals: Totals,
    files: list[DataFile],
    formats: tuple[str, ...],
    quarantine: list[dict[str, Any]],
) -> CorpusInfo:
    return CorpusInfo(
        source_root="s3://bucket/a & b",
        plan_id="p" * 64,
        tokens_key="k" * 64,
        tokenizer=TokenizerInfo(
            fingerprint=TOKENIZER, name="default", spatial_compression=8, temporal_compression=4
        ),
        window={"frames": 9, "overlap": 0, "fps": None, "tail": "pad"},
        space={"mode": "crop", "size": 64},
        routing=rule,
        statistics_digest=statistics.digest,
        split="train",
        formats=formats,
        licence="CC-BY-4.0",
        videos=VideoCounts(
            listed=statistics.num_listed,
            committed=statistics.videos,
            quarantined=len(quarantine),
        ),
        totals=totals,
        files=len(files),
        num_bytes=sum(file.bytes for file in files),
        reasons={FailureReason.TRUNCATED: len(quarantine)},
    )


def copy_of(corpus: Corpus, root: Path) -> Store:
    """A copy of its files that a test may damage."""
    shutil.copytree(corpus.store.url, root, dirs_exist_ok=True)
    return Store(str(root))
