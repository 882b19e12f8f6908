"""``infotok reconstruct``: tokens back to video, to look at and to measure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from infotok_core.tokenizer import VideoCodec
from jobs.reading import (
    open_codec,
    reading,
    require_writable,
    source_root,
    store_options,
)
from pipelines.config import StorageConfig
from pipelines.corpus_reader import CorpusReader, StoredVideo
from pipelines.file_writes import writing
from pipelines.picture_files import PictureFiles, PictureFolder, file_stem
from pipelines.reachable import check_reachable
from pipelines.reconstruct import ClipReport, check_tokenizer, mean_report, reconstruct_video
from pipelines.selection import Selection
from pipelines.source_windows import SourceWindows
from pipelines.storage import Store

__all__ = ["reconstruct"]

_RECORDED = "\0recorded"
"""Stands for ``--against`` without a value."""


@click.command()
@click.argument("corpus")
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write an .mp4 and a .png contact sheet per video.",
)
@click.option(
    "--against",
    metavar="[SOURCE]",
    is_flag=False,
    flag_value=_RECORDED,
    help="Measure PSNR and SSIM against the source; without SOURCE, where the corpus says it was.",
)
@click.option("--side-by-side", is_flag=True, help="Also an .mp4: original | result | kept tokens.")
@click.option(
    "--video", "videos", multiple=True, metavar="URI", help="Only this video; repeatable."
)
@click.option(
    "--clip", "clips", multiple=True, metavar="CLIP_ID", help="Only this window; repeatable."
)
@click.option("--limit", type=click.IntRange(min=1), help="Only the first videos.")
@click.option(
    "--json",
    "report",
    type=click.Path(dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Write the measurements; - prints them instead of the table.",
)
@click.option(
    "--checkpoint",
    default="default",
    show_default=True,
    help="The one that made the corpus: 'default', a directory, or a published .pt file.",
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: cuda if there is one.")
@store_options
def reconstruct(
    *, corpus: str, folder: Path | None, against: str | None, side_by_side: bool,
    videos: tuple[str, ...], clips: tuple[str, ...], limit: int | None, report: str | None,
    checkpoint: str, device: str | None, storage: StorageConfig,
) -> None:  # fmt: skip
    """Decode the tokens of CORPUS to video, and measure how far that is from the source.

    CORPUS comes first. Videos are written at their sampled rate, one per video, or one per window
    for those named with --clip.
    """
    if folder is None and against is None and not side_by_side:
        raise click.UsageError("nothing to do: say --to DIR, --against [SOURCE], or both")
    if side_by_side and folder is None:
        raise click.UsageError("--side-by-side writes files: say where with --to DIR")
    if side_by_side and against is None:
        against = _RECORDED
    try:
        selection = Selection.parse(videos=videos, clips=clips, limit=limit)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if report not in (None, "-"):
        require_writable(report)
    store = Store(corpus, storage)
    with reading(store.url), ExitStack() as stack:
        check_reachable(store)
        reader = CorpusReader.open(store)
        tokenizer = open_codec(checkpoint, device)
        check_tokenizer(reader.info, tokenizer)
        root = None
        if against is not None:
            root = source_root(reader, None if against == _RECORDED else against, storage)
        sources = None
        if root is not None:
            sources = stack.enter_context(SourceWindows(reader.info, root=root, storage=storage))
        pictures = PictureFolder(path=folder, side_by_side=side_by_side) if folder else None
        table = _Table(quiet=report == "-")
        for video in selection.of(reader):
            for clip in _clips(reader, video, tokenizer, sources, pictures):
                table.add(clip)
    table.finish()
    if report is not None:
        _write(report, {**table.document(), "corpus": store.url, "against": root,
                        "tokenizer": tokenizer.fingerprint})  # fmt: skip


def _clips(
    reader: CorpusReader,
    video: StoredVideo,
    tokenizer: VideoCodec,
    sources: SourceWindows | None,
    folder: PictureFolder | None,
) -> Iterator[ClipReport]:
    return reconstruct_video(
        tokenizer,
        reader.rows(video),
        originals=sources.frames(video) if sources else None,
        pictures=PictureFiles(folder, file_stem(video), num_frames=video.num_frames)
        if folder
        else None,
    )


class _Table:
    """A line per clip as it comes; the last one is the mean."""

    _HEAD = f"{'clip_id':39} {'rate':>7} {'tokens':>7} {'PSNR dB':>8} {'SSIM':>7}  source"

    def __init__(self, *, quiet: bool) -> None:
        self._say = (lambda _: None) if quiet else click.echo
        self._clips: list[ClipReport] = []

    def add(self, clip: ClipReport) -> None:
        if not self._clips:
            self._say(self._HEAD)
        self._clips.append(clip)
        self._line(clip.clip_id, asdict(clip) | {"rate": clip.rate}, clip.source)

    def finish(self) -> None:
        mean = mean_report(self._clips)
        if self._clips:
            self._line(f"mean of {mean['num_frames']} frames", mean, "")

    def document(self) -> dict[str, Any]:
        clips = [{**asdict(clip), "rate": clip.rate} for clip in self._clips]
        return {"clips": clips, "mean": mean_report(self._clips)}

    def _line(self, name: str, values: dict[str, Any], source: str) -> None:
        psnr, ssim = (
            "-" if values[key] is None else f"{values[key]:.{digits}f}"
            for key, digits in (("psnr_db", 2), ("ssim", 4))
        )
        line = f"{name:39} {values['rate']:>7.4f} {values['num_tokens']:>7} {psnr:>8} {ssim:>7}"
        self._say(f"{line}  {source}".rstrip())


def _write(path: str, document: dict[str, Any]) -> None:
    with writing(path), click.open_file(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(document, indent=1, sort_keys=True) + "\n")
