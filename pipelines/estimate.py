"""What a corpus will come to before it is made: tokens, hours, bytes, each with an interval.

The sample is the one that ``statistics.sample`` would take: the videos with the lowest ids, which
are hashes. Its videos are decoded whole, so that their windows are counted as a run counts them
and broken files are found; some windows of each are analysed and turned into rows.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from infotok_core.opening import TokenizerIdentity
from pipelines.analyser import VideoTokenizer
from pipelines.config import RunConfig
from pipelines.dealt_rows import dealt_row
from pipelines.estimate_sample import (
    WINDOWS_HELD,
    Clock,
    SampleAnalysis,
    SampledVideo,
    decode_sample,
)
from pipelines.plan_draft import PlanDraft
from pipelines.rate_rules import rate_rule
from pipelines.resampling import METHOD, RESAMPLES, Interval, VideoResamples
from pipelines.sinks.parquet import parquet_bytes
from pipelines.sinks.webdataset import tar_bytes
from pipelines.sorted_listing import ListedObject
from schemas.dealing import TokenDealer
from schemas.ids import video_id
from schemas.statistics import ElboStatistics, StatisticsFold
from schemas.tokens import rows_to_table
from schemas.window_counts import WindowCounter

__all__ = ["Estimate", "estimate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What all listed videos will come to.

    Attributes:
        videos: Listed.
        source_bytes: Of these.
        sampled: Videos that were decoded.
        sampled_windows: Windows found in them.
        analysed_windows: Windows of these that the tokenizer saw.
        reasons: Sampled videos that would be set aside, by reason.
        method: How the intervals were made.
        device: Where the tokenizer ran: ``cpu`` or ``cuda``.
        windows_per_s: Of the tokenizer, one process on that device or as the caller said.
        speed_given: The caller said it, of a device that is another.
        totals: For all videos, by name; hours are of one device or one core, of both passes where
            the second computes again; the work folder is at its largest.
    """

    videos: int
    source_bytes: int
    sampled: int
    sampled_windows: int
    analysed_windows: int
    reasons: dict[str, int]
    method: str
    device: str
    windows_per_s: float | None
    speed_given: bool
    rate: float | None
    totals: dict[str, Interval]

    def document(self) -> dict[str, Any]:
        """JSON values only."""
        return asdict(self)


def estimate(
    draft: PlanDraft,
    config: RunConfig,
    identity: TokenizerIdentity,
    load: Callable[[], VideoTokenizer],
    *,
    sample: int,
    windows_per_video: int,
    windows_per_s: float | None,
    clock: Clock,
    say: Callable[[str], None],
) -> Estimate:
    """Decode and analyse a sample, and scale it up.

    Args:
        load: Opens the tokenizer.
        sample: Videos to look at.
        windows_per_video: Windows of each that are analysed.
        windows_per_s: Speed of another device, for the hours; None: as measured here.

    Raises:
        PipelineError: If the asked rate cannot be met with what the sample shows.
    """
    head = draft.head
    tokenizer = load()
    analysis = SampleAnalysis(tokenizer, config, clock=clock)
    items = _lowest(draft, sample)
    decoded = decode_sample(
        items, config, root=head.source_root, shape=identity.shape,
        windows_per_video=windows_per_video, clock=clock,
    )  # fmt: skip
    videos = _analysed(decoded, analysis, len(items), say)
    seconds = analysis.seconds_per_window
    speed = windows_per_s or (1 / seconds if seconds else None)
    resamples = VideoResamples(
        [video.item[1] for video in videos], total_bytes=head.num_bytes, total_videos=head.videos
    )
    kept = _Tokens(videos, config, identity, num_listed=head.videos)
    reasons = Counter(str(video.failure) for video in videos if video.failure is not None)
    return Estimate(
        videos=head.videos,
        source_bytes=head.num_bytes,
        sampled=len(videos),
        sampled_windows=sum(video.windows for video in videos),
        analysed_windows=sum(len(video.analysed) for video in videos),
        reasons=dict(sorted(reasons.items())),
        method=METHOD.format(resamples=RESAMPLES),
        device=tokenizer.device.type,
        windows_per_s=speed,
        speed_given=windows_per_s is not None,
        rate=kept.rate,
        totals=_totals(videos, resamples, kept, config, speed, num_listed=head.videos),
    )


def _analysed(
    decoded: Iterable[SampledVideo],
    analysis: SampleAnalysis,
    count: int,
    say: Callable[[str], None],
) -> list[SampledVideo]:
    videos: list[SampledVideo] = []
    waiting: list[SampledVideo] = []
    for video in decoded:
        videos.append(video)
        what = video.failure or f"{video.windows} windows"
        say(f"{len(videos)}/{count} {video.item[0]}: {what} ({video.decode_s:.1f} s)")
        waiting.append(video)
        # As they come: the frames of a large sample do not fit in memory.
        if sum(len(one.kept) for one in waiting) >= WINDOWS_HELD:
            analysis.add(waiting)
            waiting = []
    analysis.add(waiting)
    return videos


def _lowest(draft: PlanDraft, sample: int) -> list[ListedObject]:
    return heapq.nsmallest(sample, draft.listing, key=lambda item: video_id(item[0]))


def _totals(
    videos: Sequence[SampledVideo],
    resamples: VideoResamples,
    kept: _Tokens,
    config: RunConfig,
    windows_per_s: float | None,
    *,
    num_listed: int,
) -> dict[str, Interval]:
    # What is not kept is made again, of the videos that came through.
    again = config.runtime.second_pass == "recompute"
    passes = [2 if again and video.failure is None else 1 for video in videos]
    at_once = min(config.runtime.wave_videos / num_listed, 1) if again else 1
    windows = resamples.total([video.windows for video in videos])
    positions = resamples.total([video.positions for video in videos])
    totals = {
        "quarantined_videos": resamples.count([video.failure is not None for video in videos]),
        "video_hours": resamples.total([video.duration_s / 3600 for video in videos]),
        "windows": windows,
        "tokens_at_full_rate": positions,
        "decode_core_hours": resamples.total(
            [video.decode_s * times / 3600 for video, times in zip(videos, passes, strict=True)]
        ),
        # A rate that is met over the corpus is not what a few of its videos get by it.
        "tokens": resamples.total(kept.tokens) if kept.met is None else positions.times(kept.met),
        "work_bytes": resamples.total(kept.unit_bytes).times(at_once),
    }
    if windows_per_s is not None:
        totals["tokenizer_hours"] = windows.times((1 + again) / windows_per_s / 3600)
    formats = ("parquet", "webdataset")
    for name in formats if config.output.format == "both" else (config.output.format,):
        totals[f"{name}_bytes"] = totals["tokens"].times(kept.bytes_per_token(name))
    return totals


class _Tokens:
    """What the routing keeps of each sampled video, and what its rows weigh.

    Attributes:
        tokens: Per video.
        unit_bytes: Per video, of the stored analyses.
        rate: Share of the positions that is kept; None without any.
        met: The same, where the whole corpus has it whatever it holds; else None.
    """

    def __init__(
        self,
        videos: Sequence[SampledVideo],
        config: RunConfig,
        identity: TokenizerIdentity,
        *,
        num_listed: int,
    ) -> None:
        self._config = config
        self._fingerprint = identity.fingerprint
        self._rows: list[dict[str, Any]] = []
        self.tokens: list[float] = [0.0] * len(videos)
        self.unit_bytes: list[float] = [0.0] * len(videos)
        self.rate: float | None = None
        self.met: float | None = None
        if not any(video.analysed for video in videos):
            return
        statistics = _statistics(
            videos, identity.fingerprint, num_listed=num_listed, floor=config.routing.token_floor
        )
        rule = rate_rule(config, statistics)
        # Statistics of a sample of the corpus meet it about.
        if rule.budget == "static" or (rule.is_exact and config.statistics.sample == 1):
            self.met = rule.target
        dealer = TokenDealer(rule)
        for index, video in enumerate(videos):
            if not video.analysed or video.facts is None:
                continue
            rows = [
                dealt_row(
                    window, dealer, video.facts,
                    {"video_id": video.video, "uri": video.item[0]},
                    tokenizer=identity.fingerprint, num_codes=identity.shape.codebook_size,
                    extra={},
                )
                for window in video.analysed
            ]  # fmt: skip
            share = video.positions / sum(window.codes.size for window in video.analysed)
            self.tokens[index] = share * sum(row["num_tokens"] for row in rows)
            self.unit_bytes[index] = share * video.unit_bytes
            self._rows += rows
        positions = sum(video.positions for video in videos)
        self.rate = sum(self.tokens) / positions if self.met is None else self.met

    def bytes_per_token(self, name: str) -> float:
        """Bytes of a data file per kept token, head and footer left out where that can be told."""
        size, tokens = self._size(name, self._rows)
        if len(self._rows) > 1:
            first_size, first_tokens = self._size(name, self._rows[:1])
            size, tokens = size - first_size, tokens - first_tokens
        return size / tokens if tokens else 0.0

    def _size(self, name: str, rows: Sequence[dict[str, Any]]) -> tuple[int, int]:
        if not rows:
            return 0, 0
        tokens = sum(row["num_tokens"] for row in rows)
        if name == "webdataset":
            return len(tar_bytes(rows)), tokens
        data = parquet_bytes(
            rows_to_table(list(rows)),
            encoding=self._config.output.parquet_encoding,
            row_group_rows=self._config.output.row_group_rows,
            tokenizer=self._fingerprint,
        )
        return len(data), tokens


def _statistics(
    videos: Sequence[SampledVideo], tokenizer: str, *, num_listed: int, floor: float | None
) -> ElboStatistics:
    """Statistics as if each analysed window stood for as many as its video has for each of them."""
    fold = StatisticsFold(floor)
    for video in videos:
        counter = WindowCounter(floor)
        least, more = divmod(video.windows, max(len(video.analysed), 1))
        for index, window in enumerate(video.analysed):
            for _ in range(least + (index < more)):
                counter.add(window.information)
        fold.add_video(*counter.freeze())
    return fold.freeze(plan_id="", tokenizer=tokenizer, num_listed=num_listed)
