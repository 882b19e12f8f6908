"""``infotok report``: a corpus on one page, with its videos playing."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click

from infotok_core.tokenizer import VideoCodec
from jobs.options import refuse_idle
from jobs.reading import open_codec, reading, source_root, store_options
from pipelines.config import StorageConfig
from pipelines.corpus_reader import CorpusReader
from pipelines.errors import PlanMismatchError, StorageError
from pipelines.file_writes import writing
from pipelines.reachable import check_reachable
from pipelines.reconstruct import check_tokenizer
from pipelines.report import ReportDetails, report_html
from pipelines.report_clips import ReportVideo, read_windows, report_videos, spread
from pipelines.selection import Selection
from pipelines.source_windows import SourceWindows
from pipelines.storage import Store
from pipelines.timings import read_timings
from schemas.layout import QUARANTINE_PATH, RECONSTRUCTION_PATH, REPORT_PATH, STATISTICS_PATH
from schemas.quarantine import decode_quarantine
from schemas.reconstruction import ReconstructionSample
from schemas.statistics import ElboStatistics

__all__ = ["report"]

_SAMPLED_WINDOWS = 20_000


@click.command()
@click.argument("corpus")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Write the page here; default: report.html of the corpus.",
)  # fmt: skip
@click.option("--videos", "count", type=click.IntRange(min=0), default=4, show_default=True,
              help="So many, from the least to the most informative.")  # fmt: skip
@click.option("--video", "named", multiple=True, metavar="URI", help="This one; repeatable.")
@click.option(
    "--against", metavar="SOURCE",
    help="Where the source is; default: where the corpus says it was, if it is still there.",
)  # fmt: skip
@click.option("--no-decode", is_flag=True, help="Play nothing: timelines and figures alone.")
@click.option("--work", help="Work folder, for the throughput; default CORPUS/_work.")
@click.option(
    "--checkpoint", default="default", show_default=True,
    help="The one that made the corpus: 'default', a directory, or a published .pt file.",
)  # fmt: skip
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: cuda if there is one.")
@store_options
def report(
    *, corpus: str, output: Path | None, count: int, named: tuple[str, ...], against: str | None,
    no_decode: bool, work: str | None, checkpoint: str, device: str | None, storage: StorageConfig,
) -> None:  # fmt: skip
    """Write one HTML page about CORPUS that loads nothing: to look at, and to send round.

    Videos play as original, reconstruction and kept tokens side by side.
    """
    if no_decode:
        refuse_idle(["against", "checkpoint", "device"], "with --no-decode nothing is decoded")
    if named:
        refuse_idle(["count"], "--video names them")
    store = Store(corpus, storage)
    with reading(store.url):
        check_reachable(store)
        reader = CorpusReader.open(store)
        tokenizer = None
        if not no_decode:
            tokenizer = open_codec(checkpoint, device)
            check_tokenizer(reader.info, tokenizer)
        windows = read_windows(reader, limit=_SAMPLED_WINDOWS)
        chosen = _chosen(reader, named) or spread(windows, count)
        shown = _Videos(reader, chosen, tokenizer, against, storage).read()
        page = report_html(
            reader.info,
            _statistics(store),
            decode_quarantine(store.read(QUARANTINE_PATH)),
            ReportDetails(
                windows=windows,
                videos=shown.videos,
                measured=_measured(store, reader.info.tokens_key),
                timings=read_timings(Store(work, storage) if work else store.child("_work")),
                without_originals=shown.why,
            ),
        )
        _write(page, store, output)


def _chosen(reader: CorpusReader, named: tuple[str, ...]) -> list[str]:
    if not named:
        return []
    # Names every video that the corpus lacks.
    return [video.video_id for video in Selection.parse(videos=named).of(reader)]


def _statistics(store: Store) -> ElboStatistics | None:
    if not store.exists(STATISTICS_PATH):
        return None
    return ElboStatistics.from_bytes(store.read(STATISTICS_PATH))


def _measured(store: Store, tokens_key: str) -> ReconstructionSample | None:
    if not store.exists(RECONSTRUCTION_PATH):
        return None
    measured = ReconstructionSample.from_bytes(store.read(RECONSTRUCTION_PATH))
    return measured if measured.tokens_key == tokens_key else None


def _write(page: str, store: Store, output: Path | None) -> None:
    data = page.encode()
    if output is None:
        store.replace(REPORT_PATH, data)
    else:
        with writing(output):
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_bytes(data)
    click.echo(str(output or store.full(REPORT_PATH)))


@dataclass(frozen=True)
class _Shown:
    videos: list[ReportVideo]
    why: str = ""


@dataclass(frozen=True)
class _Videos:
    """The videos of the page: beside their sources, or without where nobody named these."""

    reader: CorpusReader
    wanted: list[str]
    tokenizer: VideoCodec | None
    against: str | None
    storage: StorageConfig

    def read(self) -> _Shown:
        if not self.wanted:
            return _Shown([])
        if self.tokenizer is None:
            return _Shown(self._all(None))
        root = source_root(self.reader, self.against, self.storage)
        try:
            with ExitStack() as stack:
                sources = SourceWindows(self.reader.info, root=root, storage=self.storage)
                return _Shown(self._all(stack.enter_context(sources)))
        except (StorageError, PlanMismatchError) as error:
            if self.against is not None:
                raise
            click.echo(f"without originals: {error}", err=True)
            return _Shown(self._all(None), f"Without originals: {error}")

    def _all(self, sources: SourceWindows | None) -> list[ReportVideo]:
        return list(report_videos(self.reader, self.wanted, self.tokenizer, sources))
