"""What the report plays: videos of a corpus, decoded, beside their sources if these are at hand."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from infotok_core.tokenizer import VideoCodec
from pipelines.corpus_reader import CorpusReader, StoredVideo
from pipelines.errors import PipelineError
from pipelines.picture_files import PictureFiles, PictureFolder
from pipelines.reconstruct import mean_report, reconstruct_video
from pipelines.source_windows import SourceWindows
from pipelines.video_writer import writes_h264
from schemas.ids import WINDOWS_PER_UNIT

__all__ = ["ReportVideo", "WindowFacts", "read_windows", "report_videos", "spread"]

_PLAYED_WINDOWS = 3
_CRF = 21
"""Of the embedded videos: a page to send round, on which the loss to be seen is the tokenizer's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowFacts:
    """A row without its tokens; the names are those of the columns."""

    video_id: str
    source: str
    window_index: int
    start_time_s: float
    end_time_s: float
    num_tokens: int
    rate: float
    elbo: float

    @property
    def tokens_per_second(self) -> float:
        """Kept tokens per second of video."""
        return self.num_tokens / max(self.end_time_s - self.start_time_s, 1e-9)

    @property
    def most_tokens_per_second(self) -> float:
        """The same at full rate."""
        return self.tokens_per_second / self.rate


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportVideo:
    """One video of the report.

    Attributes:
        windows: All of its windows, in order.
        played: Those of ``windows`` that ``mp4`` shows.
        mp4: H.264; the panels of each frame beside each other. None if nothing was decoded.
        panels: What they are, from the left.
        psnr_db: Mean over the played frames; None without the source.
        ssim: Likewise.
    """

    windows: tuple[WindowFacts, ...]
    played: tuple[WindowFacts, ...]
    mp4: bytes | None = None
    panels: tuple[str, ...] = ()
    psnr_db: float | None = None
    ssim: float | None = None


def read_windows(reader: CorpusReader, *, limit: int) -> list[WindowFacts]:
    """Windows of whole data files, chosen at random but the same each time.

    Args:
        limit: No further file is read after so many; smaller corpora are read whole.
    """
    names = list(WindowFacts.__dataclass_fields__)
    return [
        WindowFacts(**dict(zip(names, values, strict=True)))
        for values in reader.sample(names, limit=limit)
    ]


def spread(windows: Sequence[WindowFacts], count: int) -> list[str]:
    """Ids of videos from the least to the most informative one, evenly spread between."""
    sums: dict[str, tuple[float, int]] = {}
    for window in windows:
        total, number = sums.get(window.video_id, (0.0, 0))
        sums[window.video_id] = (total + window.elbo, number + 1)
    ordered = sorted(sums, key=lambda video: (sums[video][0] / sums[video][1], video))
    if len(ordered) <= count:
        return ordered
    return [ordered[round(k * (len(ordered) - 1) / max(count - 1, 1))] for k in range(count)]


def report_videos(
    reader: CorpusReader,
    wanted: Collection[str],
    tokenizer: VideoCodec | None,
    sources: SourceWindows | None,
) -> Iterator[ReportVideo]:
    """Read and decode some videos.

    Args:
        wanted: Their ids.
        tokenizer: That of the corpus; None decodes nothing.
        sources: None: there is no original beside them.

    Raises:
        PipelineError: If FFmpeg cannot write what browsers play.
        StorageError: If a source is gone; PlanMismatchError: if it is another.
    """
    if tokenizer is not None and not writes_h264():
        raise PipelineError(
            "this FFmpeg cannot write H.264, which a page has to hold; make the report without "
            "videos (--no-decode), or install the `av` wheel of PyPI"
        )
    for video in reader.videos(wanted):
        windows = tuple(_facts(row) for row in reader.rows(video))
        first = _busiest(windows)
        played = windows[first : first + _PLAYED_WINDOWS]
        shown = ReportVideo(windows=windows, played=played)
        if tokenizer is not None:
            run = _run(video, first, len(played))
            shown = _decoded(reader, shown, run, tokenizer, sources)
        yield shown


def _facts(row: dict[str, Any]) -> WindowFacts:
    return WindowFacts(**{name: row[name] for name in WindowFacts.__dataclass_fields__})


def _busiest(windows: Sequence[WindowFacts]) -> int:
    """First of the neighbouring windows that hold most tokens: where the network has it hardest."""
    # Of the first unit: a film is not decoded to its end for a few seconds of it.
    last = max(min(len(windows), WINDOWS_PER_UNIT) - _PLAYED_WINDOWS, 0)
    sums = [
        sum(window.num_tokens for window in windows[first : first + _PLAYED_WINDOWS])
        for first in range(last + 1)
    ]
    return sums.index(max(sums))


def _run(video: StoredVideo, first: int, count: int) -> StoredVideo:
    part = slice(first, first + count)
    whole = count == len(video.keys)
    return replace(video, keys=video.keys[part], files=video.files[part], whole=whole)


def _decoded(
    reader: CorpusReader,
    shown: ReportVideo,
    run: StoredVideo,
    tokenizer: VideoCodec,
    sources: SourceWindows | None,
) -> ReportVideo:
    with tempfile.TemporaryDirectory() as name:
        folder = PictureFolder(path=Path(name), side_by_side=True, crf=_CRF)
        clips = list(
            reconstruct_video(
                tokenizer,
                reader.rows(run),
                originals=None if sources is None else sources.frames(run),
                pictures=PictureFiles(folder, "clip", num_frames=run.num_frames),
            )
        )
        mp4 = Path(name, "clip.side-by-side.mp4").read_bytes()
    mean = mean_report(clips)
    first = () if sources is None else ("original",)
    return replace(
        shown,
        mp4=mp4,
        panels=(*first, "reconstruction", "kept tokens"),
        psnr_db=mean["psnr_db"],
        ssim=mean["ssim"],
    )
