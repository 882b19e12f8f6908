from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpora import build_corpus
from video_corpora import Analysed, analyse_videos, write_corpus
from videos import decoded_rgb, read_numbers, write_video

from infotok_core.tokenizer import Tokenizer
from infotok_core.windows import blend
from pipelines.config import SpaceConfig, StorageConfig, WindowConfig
from pipelines.corpus_reader import CorpusReader, StoredVideo
from pipelines.errors import IncompleteError, PipelineError, PlanMismatchError, StorageError
from pipelines.metrics import psnr_db, ssim
from pipelines.picture_files import PictureFiles, PictureFolder, file_stem
from pipelines.reconstruct import (
    ClipReport,
    check_tokenizer,
    mean_report,
    reconstruct_row,
    reconstruct_video,
)
from pipelines.selection import Selection
from pipelines.source_windows import SourceWindows
from schemas.ids import quote_path, video_id
from schemas.layout import MANIFEST_PATH
from schemas.versions import FormatError

LENGTHS = {"a.mp4": 23, "deep/b c.mkv": 9, "z.mp4": 20}
SPACE = SpaceConfig(size=64)
WINDOWS = {overlap: WindowConfig(frames=9, overlap=overlap) for overlap in (0, 3)}


@dataclass(frozen=True, kw_only=True)
class Made:
    """Videos and what the tokenizer says of them."""

    root: Path
    tokenizer: Tokenizer
    analysed: dict[int, Analysed]

    def corpus(self, output: Path, overlap: int = 0, **options: object) -> CorpusReader:
        store = write_corpus(
            output,
            self.analysed[overlap],
            tokenizer=self.tokenizer,
            source_root=self.root,
            window=WINDOWS[overlap],
            space=SPACE,
            **options,
        )
        return CorpusReader.open(store)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("videos")
    (root / "deep").mkdir()
    for name, length in LENGTHS.items():
        write_video(root / name, length, rate=Fraction(30000, 1001))
    tokenizer = Tokenizer.load("default")
    analysed = {
        overlap: analyse_videos(tokenizer, root, window=window, space=SPACE)
        for overlap, window in WINDOWS.items()
    }
    return Made(root=root, tokenizer=tokenizer, analysed=analysed)


@pytest.fixture
def reader(made: Made, tmp_path: Path) -> CorpusReader:
    return made.corpus(tmp_path / "corpus", rate=0.9)


def _video(reader: CorpusReader, uri: str) -> StoredVideo:
    (video,) = reader.videos({video_id(uri)})
    return video


def _sources(reader: CorpusReader, root: Path) -> SourceWindows:
    return SourceWindows(reader.info, root=str(root), storage=StorageConfig())


def _files(folder: Path, video: StoredVideo, **options: bool) -> PictureFiles:
    where = PictureFolder(path=folder, **options)
    return PictureFiles(where, file_stem(video), num_frames=video.num_frames)


def _appended(tokenizer: Tokenizer, rows: list[dict[str, Any]], *, overlap: int) -> np.ndarray:
    """The published way: everything in memory, one seam after the other."""
    parts = [reconstruct_row(tokenizer, row) for row in rows]
    video = parts[0]
    for part in parts[1:]:
        cut = len(video) - overlap
        seam = blend(video[cut:], part[:overlap])
        video = np.concatenate([video[:cut], seam, part[overlap:]])
    return video


@pytest.mark.parametrize("overlap", [0, 3])
def test_every_frame_comes_back_once_and_in_order(made: Made, tmp_path: Path, overlap: int):
    reader = made.corpus(tmp_path / "corpus", overlap, rate=0.9)
    for video in reader.videos():
        pictures = _files(tmp_path / "out", video)
        reports = list(reconstruct_video(made.tokenizer, reader.rows(video), pictures=pictures))
        assert len(reports) == len(video.keys)
        frames, rate = decoded_rgb(tmp_path / "out" / f"{file_stem(video)}.mp4")
        assert len(frames) == LENGTHS[video.source]
        assert rate == Fraction(30000, 1001)
        expected = _appended(made.tokenizer, list(reader.rows(video)), overlap=overlap)
        # A frame that is missing, doubled or out of order differs by far more.
        assert np.abs(frames.astype(int) - expected).mean(axis=(1, 2, 3)).max() < 6


def test_pictures_are_complete_and_nothing_else_is_left(
    made: Made, reader: CorpusReader, tmp_path: Path
):
    video, out = _video(reader, "a.mp4"), tmp_path / "out"
    with _sources(reader, made.root) as sources:
        list(
            reconstruct_video(
                made.tokenizer,
                reader.rows(video),
                originals=sources.frames(video),
                pictures=_files(out, video, side_by_side=True),
            )
        )
    stem = file_stem(video)
    names = {f"{stem}.mp4", f"{stem}.png", f"{stem}.side-by-side.mp4"}
    assert {path.name for path in out.iterdir()} == names
    wide, _ = decoded_rgb(out / f"{stem}.side-by-side.mp4")
    assert wide.shape == (23, 64, 3 * 64 + 8, 3)
    assert read_numbers(wide[:, :, :64]) == list(range(23))
    result, _ = decoded_rgb(out / f"{stem}.mp4")
    assert np.abs(wide[:, :, 68:132].astype(int) - result).mean() < 4
    (sheet,), _ = decoded_rgb(out / f"{stem}.png")
    assert sheet.shape == (3 * 64 + 8, 6 * 64 + 5 * 4, 3)
    assert read_numbers([sheet[:64, 68 * i : 68 * i + 64] for i in range(6)]) == [
        1, 5, 9, 13, 17, 21,
    ]  # fmt: skip


def test_an_error_on_the_way_leaves_no_file(made: Made, reader: CorpusReader, tmp_path: Path):
    video, out = _video(reader, "a.mp4"), tmp_path / "out"

    def broken() -> Iterator[dict[str, object]]:
        first, second, *_ = reader.rows(video)
        yield first
        yield {**second, "tokens": second["tokens"][1:]}

    reports = reconstruct_video(made.tokenizer, broken(), pictures=_files(out, video))
    with pytest.raises(FormatError, match=video.video_id):
        list(reports)
    assert list(out.iterdir()) == []


def test_windows_are_measured_against_the_frames_that_pass_one_saw(made: Made, tmp_path: Path):
    reader = made.corpus(tmp_path / "corpus", 3, rate=0.9)
    video = _video(reader, "z.mp4")
    with _sources(reader, made.root) as sources:
        originals = list(sources.frames(video))
        reports = list(
            reconstruct_video(made.tokenizer, reader.rows(video), originals=sources.frames(video))
        )
    for row, frames, report in zip(reader.rows(video), originals, reports, strict=True):
        again = reconstruct_row(made.tokenizer, row)
        assert report.psnr_db == psnr_db(frames, again) > 15
        assert report.ssim == ssim(frames, again) > 0.5
        assert report.rate == pytest.approx(row["rate"])
        numbers = read_numbers(frames)
        assert numbers == list(range(row["start_frame"], row["start_frame"] + row["num_frames"]))


def test_single_windows_can_be_compared_too(made: Made, reader: CorpusReader):
    with _sources(reader, made.root) as sources:
        for index in (2, 0):
            video = _video(reader, "a.mp4").only(index)
            (frames,) = sources.frames(video)
            assert read_numbers(frames)[0] == 9 * index
            assert file_stem(video).endswith(f"-{index:06d}")
    with pytest.raises(KeyError):
        _video(reader, "a.mp4").only(3)


@pytest.mark.parametrize("length", [14, 40])
def test_another_source_is_noticed(made: Made, reader: CorpusReader, tmp_path: Path, length: int):
    write_video(tmp_path / "a.mp4", length)
    with _sources(reader, tmp_path) as sources, pytest.raises(PlanMismatchError, match=r"a\.mp4"):
        list(sources.frames(_video(reader, "a.mp4")))


def test_a_source_that_is_gone_is_named(reader: CorpusReader, tmp_path: Path):
    with _sources(reader, tmp_path) as sources, pytest.raises(StorageError, match="NOT_FOUND"):
        list(sources.frames(_video(reader, "a.mp4")))


@pytest.mark.parametrize("rows_per_file", [1, 2, 100])
def test_both_formats_give_the_same_rows_in_order_however_they_are_split(
    made: Made, tmp_path: Path, rows_per_file: int
):
    both = []
    for kind in ("parquet", "webdataset"):
        reader = made.corpus(tmp_path / kind, formats=[kind], rows_per_file=rows_per_file, rate=0.5)
        videos = list(reader.videos())
        assert sorted(video.source for video in videos) == sorted(LENGTHS)
        both.append({video.source: list(reader.rows(video)) for video in videos})
    for source, rows in both[0].items():
        assert [row["window_index"] for row in rows] == list(range(len(rows)))
        for row, sample in zip(rows, both[1][source], strict=True):
            assert row["clip_id"] == sample["clip_id"]
            assert row["mask"] == sample["mask"]
            np.testing.assert_array_equal(row["tokens"], sample["tokens"])


@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_a_file_that_is_not_the_listed_one_is_refused(made: Made, tmp_path: Path, kind: str):
    reader = made.corpus(tmp_path / "corpus", formats=[kind])
    path = next(path for path, _ in reader.store.list() if path.startswith(("data", "wds")))
    data = bytearray(reader.store.read(path))
    data[len(data) // 2] ^= 1
    reader.store.replace(path, bytes(data))
    with pytest.raises(FormatError, match="SHA-256"):
        list(reader.videos())
    reader.store.delete(path)
    with pytest.raises(StorageError, match="gone"):
        list(reader.videos())


def test_without_a_manifest_there_is_no_corpus(reader: CorpusReader):
    reader.store.delete(MANIFEST_PATH)
    with pytest.raises(IncompleteError, match=MANIFEST_PATH):
        CorpusReader.open(reader.store)


def test_other_weights_are_refused(made: Made, reader: CorpusReader):
    check_tokenizer(reader.info, made.tokenizer)
    named = reader.info.tokenizer.model_copy(update={"fingerprint": "0" * 64})
    with pytest.raises(PlanMismatchError, match="--checkpoint"):
        check_tokenizer(reader.info.model_copy(update={"tokenizer": named}), made.tokenizer)


def test_a_row_that_says_another_size_is_refused(made: Made, reader: CorpusReader):
    row = next(reader.rows(_video(reader, "a.mp4")))
    for change in ({"width": 80}, {"num_frames": 99}, {"mask": row["mask"][1:]}):
        with pytest.raises(FormatError, match=row["clip_id"]):
            reconstruct_row(made.tokenizer, {**row, **change})


def _selected(reader: CorpusReader, **asked: object) -> list[tuple[str, list[int]]]:
    found = Selection.parse(**asked).of(reader)
    return [(video.source, [key.window_index for key in video.keys]) for video in found]


def test_videos_and_clips_can_be_picked(reader: CorpusReader):
    clip = f"{video_id('z.mp4')}-000001"
    assert len(_selected(reader)) == 3
    assert len(_selected(reader, limit=2)) == 2
    assert _selected(reader, videos=["deep/b c.mkv"]) == [("deep/b c.mkv", [0])]
    assert _selected(reader, clips=[clip]) == [("z.mp4", [1])]
    assert _selected(reader, clips=[clip], videos=["z.mp4"]) == [
        ("z.mp4", [0, 1, 2]),
        ("z.mp4", [1]),
    ]


@pytest.mark.parametrize("written", ["100 %.mp4", "100 %25.mp4"])
def test_a_percent_sign_may_be_written_as_in_the_folder_or_as_in_the_rows(written: str):
    uri = quote_path("100 %.mp4")
    assert written in Selection.parse(videos=[written]).videos.values()
    assert video_id(uri) in Selection.parse(videos=[written]).videos


def test_what_the_corpus_lacks_is_named(reader: CorpusReader):
    for asked in ({"videos": ["no.mp4"]}, {"clips": [f"{video_id('z.mp4')}-000077"]}):
        ((what,),) = asked.values()
        with pytest.raises(PipelineError, match=what):
            _selected(reader, **asked)
    with pytest.raises(ValueError, match="not a clip id"):
        Selection.parse(clips=["000077"])


def test_what_was_set_aside_is_named_with_its_reason(tmp_path: Path):
    reader = CorpusReader.open(build_corpus(tmp_path).store)
    uri = "broken & <b>.mp4"
    for asked in ({"videos": [uri]}, {"clips": [f"{video_id(uri)}-000000"]}):
        with pytest.raises(PipelineError, match=r"has no \S.* \(set aside: TRUNCATED\)$"):
            _selected(reader, **asked)


def test_the_mean_weighs_frames():
    reports = [
        ClipReport(
            clip_id="c",
            source="s",
            num_frames=frames,
            num_tokens=10,
            cells=20,
            psnr_db=db,
            ssim=1.0,
        )
        for frames, db in ((30, 20.0), (10, 40.0))
    ]
    assert mean_report(reports)["psnr_db"] == 25
    assert mean_report(reports)["rate"] == 0.5
    assert mean_report([])["psnr_db"] is None
