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
from pipelines.estimate_rows import SampledRows
from pipelines.estimate_sample import (
    WINDOWS_HELD,
    Clock,
    SampleAnalysis,
    SampledVideo,
    decode_sample,
)
from pipelines.plan_draft import PlanDraft
from pipelines.resampling import METHOD, RESAMPLES, Interval, VideoResamples
from pipelines.sorted_listing import ListedObject
from schemas.ids import video_id
from schemas.plan import PlanHead

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
        windows_per_s: Of the tokenizer, on one such device or as the caller said; on a CPU per
            second of one core.
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
    cpu_clock: Clock,
    say: Callable[[str], None],
) -> Estimate:
    """Decode and analyse a sample, and scale it up.

    Args:
        load: Opens the tokenizer.
        sample: Videos to look at.
        windows_per_video: Windows of each that are analysed.
        windows_per_s: Speed of another device, for the hours; None: as measured here.
        clock: Seconds.
        cpu_clock: Seconds that all threads of this process computed together: what a tokenizer on
            a CPU takes, whatever else the machine does meanwhile.

    Raises:
        PipelineError: If the asked rate cannot be met with what the sample shows.
    """
    head = draft.head
    tokenizer = load()
    on_cpu = tokenizer.device.type == "cpu"
    analysis = SampleAnalysis(tokenizer, config, clock=cpu_clock if on_cpu else clock)
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
    kept = SampledRows(videos, config, identity, num_listed=head.videos)
    reasons = Counter(str(video.failure.reason) for video in videos if video.failure)
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
        totals=_totals(videos, resamples, kept, config, speed, head),
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
        failure = video.failure
        what = f"{failure.reason}, {failure.detail}" if failure else f"{video.windows} windows"
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
    kept: SampledRows,
    config: RunConfig,
    windows_per_s: float | None,
    head: PlanHead,
) -> dict[str, Interval]:
    # What is not kept is made again, of the videos that came through.
    again = config.runtime.second_pass == "recompute"
    passes = [2 if again and video.failure is None else 1 for video in videos]
    at_once = min(config.runtime.wave_videos / head.videos, 1) if again else 1
    windows = resamples.total([video.windows for video in videos])
    positions = [video.positions for video in videos]
    full = resamples.total(positions)
    # Of some windows more is known than that they are there.
    seen = sum(len(video.analysed) for video in videos) / max(windows.value, 1)
    tokens = full.by(resamples.per(kept.tokens, positions, seen=seen))
    weight = resamples.per([video.unit_bytes for video in videos], positions, seen=seen)
    totals = {
        "quarantined_videos": resamples.count([video.failure is not None for video in videos]),
        "video_hours": resamples.total([video.duration_s / 3600 for video in videos]),
        "windows": windows,
        "tokens_at_full_rate": full,
        "decode_core_hours": resamples.total(
            [video.decode_s * times / 3600 for video, times in zip(videos, passes, strict=True)]
        ),
        # A rate that is met over the corpus is not what a few of its videos get by it.
        "tokens": tokens if kept.met is None else full.times(kept.met),
        "work_bytes": full.by(weight).times(at_once),
    }
    if windows_per_s is not None:
        totals["tokenizer_hours"] = windows.times((1 + again) / windows_per_s / 3600)
    formats = ("parquet", "webdataset")
    for name in formats if config.output.format == "both" else (config.output.format,):
        rows, around = kept.file_bytes(name)
        weight = resamples.per(rows, positions, seen=seen)
        # Larger shards have several files; beside what these hold nobody sees it.
        totals[f"{name}_bytes"] = full.by(weight).plus(around * head.shards)
    return totals
