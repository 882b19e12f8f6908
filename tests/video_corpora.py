"""A corpus made from real videos by the real tokenizer, without the engine: for reconstruction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from corpora_by_hand import without_charts
from videos import write_video

from infotok_core.router import select
from infotok_core.tokenizer import Tokenizer, valid_latent_frames
from pipelines.config import DecodeLimits, SpaceConfig, WindowConfig
from pipelines.decode import DecodeRequest, DecoderProcess
from pipelines.finalise import publish_heads
from pipelines.sinks.energon import INDEX_SUFFIX, energon_tar_index
from pipelines.sinks.parquet import parquet_bytes
from pipelines.sinks.webdataset import tar_bytes
from pipelines.storage import Store
from schemas.ids import video_id
from schemas.info import CorpusInfo, TokenizerInfo, VideoCounts
from schemas.layout import data_path
from schemas.manifest import DataFile, TotalsBuilder
from schemas.statistics import (
    ElboAccumulator,
    RateRule,
    StatisticsFold,
    num_tokens,
    solve_rule,
)
from schemas.tokens import rows_to_table, token_row
from schemas.units import window_sum
from schemas.windows import StreamFacts, WindowAnalysis

Analysed = dict[str, tuple[StreamFacts, list[WindowAnalysis]]]


def analyse_videos(
    tokenizer: Tokenizer, root: Path, *, window: WindowConfig, space: SpaceConfig
) -> Analysed:
    """Every file below ``root``, decoded and encoded."""
    videos: Analysed = {}
    with DecoderProcess() as decoder:
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            request = DecodeRequest(
                url=str(path),
                storage_options={},
                size=None,
                window=window,
                space=space,
                limits=DecodeLimits(),
            )
            windows: list[WindowAnalysis] = []
            for decoded in decoder.windows(request):
                found = tokenizer.analyse(torch.from_numpy(decoded.frames_THWC)[None])
                valid = valid_latent_frames(decoded.span.num_frames, 4)
                windows.append(
                    WindowAnalysis(
                        span=decoded.span,
                        codes=found.codes_Bthw[0, :valid].numpy().astype(np.uint16),
                        information=found.information_Bthw[0, :valid].numpy().astype(np.float16),
                    )
                )
            assert decoder.facts is not None
            videos[path.relative_to(root).as_posix()] = decoder.facts, windows
    return videos


def write_corpus(
    output: Path,
    videos: Analysed,
    *,
    tokenizer: Tokenizer,
    source_root: Path,
    window: WindowConfig,
    space: SpaceConfig,
    rate: float = 0.5,
    formats: Sequence[str] = ("parquet",),
    rows_per_file: int = 1000,
) -> Store:
    """Select and write; one shard of as many files as it takes."""
    store = Store(str(output))
    statistics = _statistics(videos, tokenizer)
    rule = solve_rule(statistics.bins, rate=rate, min_rate=1 / 16)
    rows = [
        _row(window_analysis, facts, uri, tokenizer, rule)
        for uri, (facts, windows) in videos.items()
        for window_analysis in windows
    ]
    totals = TotalsBuilder()
    for row in rows:
        totals.add(row)
    files: list[DataFile] = []
    for part, start in enumerate(range(0, len(rows), rows_per_file)):
        some = rows[start : start + rows_per_file]
        for kind in formats:
            path = data_path(kind, split="train", shard=0, part=part)
            data = tar_bytes(some) if kind == "webdataset" else _parquet(some, tokenizer)
            if kind == "webdataset":
                store.publish(path + INDEX_SUFFIX, energon_tar_index(data))
            store.publish(path, data)
            files.append(DataFile.of(path, data, rows=some, shard=0, format=kind))
    info = CorpusInfo(
        source_root=str(source_root),
        plan_id="p" * 64,
        tokens_key="k" * 64,
        tokenizer=TokenizerInfo(
            fingerprint=tokenizer.fingerprint,
            name="default",
            spatial_compression=8,
            temporal_compression=4,
        ),
        window=window.model_dump(),
        space=space.model_dump(),
        routing=rule,
        statistics_digest=statistics.digest,
        split="train",
        formats=tuple(formats),
        licence="unknown",
        videos=VideoCounts(listed=len(videos), committed=len(videos), quarantined=0),
        totals=totals.freeze(),
        files=len(files),
        num_bytes=sum(file.bytes for file in files),
        reasons={},
    )
    with without_charts():
        publish_heads(store, info, statistics, [], files)
    return store


@dataclass(frozen=True)
class SmallCorpus:
    """The same rows as Parquet and as tars, beside their videos."""

    parquet: Path
    webdataset: Path
    videos: Path


def small(root: Path) -> SmallCorpus:
    """Two synthetic videos (12 and 9 frames) by the default tokenizer."""
    videos = root / "videos"
    videos.mkdir()
    for name, length in (("a.mp4", 12), ("b.mp4", 9)):
        write_video(videos / name, length)
    tokenizer = Tokenizer.load("default")
    window, space = WindowConfig(frames=9), SpaceConfig(size=64)
    analysed = analyse_videos(tokenizer, videos, window=window, space=space)
    for kind in ("parquet", "webdataset"):
        write_corpus(
            root / kind,
            analysed,
            tokenizer=tokenizer,
            source_root=videos,
            window=window,
            space=space,
            formats=[kind],
        )
    return SmallCorpus(root / "parquet", root / "webdataset", videos)


def _statistics(videos: Analysed, tokenizer: Tokenizer) -> Any:
    fold = StatisticsFold()
    for _, windows in videos.values():
        bins = ElboAccumulator()
        for window in windows:
            bins.add(window_sum(window.information), window.information.size)
        fold.add_video(bins.freeze())
    return fold.freeze(plan_id="p" * 64, tokenizer=tokenizer.fingerprint, num_listed=len(videos))


def _row(
    window: WindowAnalysis, facts: StreamFacts, uri: str, tokenizer: Tokenizer, rule: RateRule
) -> dict[str, Any]:
    cells = window.codes.size
    rate = rule.rate(window_sum(window.information), cells)
    keep = select(window.information.reshape(-1), num_tokens(rate, cells))
    return token_row(
        window,
        np.asarray(keep, bool).reshape(window.codes.shape),
        facts=facts,
        video=video_id(uri),
        source=uri,
        tokenizer=tokenizer.fingerprint,
        rate_target=rate,
    )


def _parquet(rows: list[dict[str, Any]], tokenizer: Tokenizer) -> bytes:
    return parquet_bytes(
        rows_to_table(rows),
        encoding="byte_stream_split",
        row_group_rows=2,
        tokenizer=tokenizer.fingerprint,
    )
