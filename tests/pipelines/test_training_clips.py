"""Which way a corpus is opened for training: in memory if it fits, streamed if it does not."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
import torch
from training_corpora import SIDE, small_config, source_of, videos_of, write_telling

from infotok_core.clips import ClipSource
from pipelines.config import RunConfig
from pipelines.errors import PipelineError
from pipelines.training_clips import held_out_clips
from pipelines.training_data import MemoryClips, StreamClips, choose_memory, open_clips
from pipelines.training_size import decoded_bytes, free_bytes

NUM_BYTES = (20 + 30) * SIDE * SIDE * 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_telling(folder / "a.mkv", 0, 20)
    write_telling(folder / "b.mkv", 1, 30)
    (folder / "broken.mkv").write_bytes(b"no video")
    return folder


def opened(folder: Path, **changes: object) -> MemoryClips | StreamClips:
    config = small_config(**changes)
    return open_clips(source_of(folder), config, RunConfig(), device="cpu")


def test_a_corpus_that_fits_is_held_and_another_is_streamed(folder: Path):
    digests: set[str] = set()
    for budget, kind in ((2 * NUM_BYTES, "memory"), (NUM_BYTES // 2, "stream")):
        with closing(opened(folder, memory="auto", memory_bytes=budget)) as clips:
            source: ClipSource = clips
            assert clips.kind == kind
            assert source.batch(0).shape == (4, 5, 16, 16, 3)
            digests.add(clips.corpus_digest)
    assert len(digests) == 1


def test_the_choice_can_be_made_once_for_all_ranks(folder: Path):
    config = small_config(memory="auto", memory_bytes=2 * NUM_BYTES)
    assert choose_memory(source_of(folder), config, RunConfig(), device="cpu") == "always"


def test_a_choice_that_was_made_is_kept(folder: Path):
    for memory in ("always", "never"):
        config = small_config(memory=memory, memory_bytes=1)
        assert choose_memory(source_of(folder), config, RunConfig(), device="cpu") == memory
    with closing(opened(folder, memory="always", memory_bytes=1)) as clips:
        assert clips.kind == "memory"


def test_the_estimate_is_near_the_truth_and_half_of_free_memory_is_offered(folder: Path):
    videos = videos_of(folder)
    with closing(videos):
        estimate = decoded_bytes(videos, SIDE)
    assert estimate == pytest.approx(NUM_BYTES, rel=0.05)
    free = free_bytes(torch.device("cpu"), num_ranks=1)
    assert free > 1 << 20
    assert free_bytes(torch.device("cpu"), num_ranks=4) == pytest.approx(free / 4, rel=0.3)


def test_a_corpus_of_broken_videos_is_an_error(tmp_path: Path):
    (tmp_path / "a.mkv").write_bytes(b"no video")
    with pytest.raises(PipelineError, match="no video holds 5 frames of 16x16"):
        opened(tmp_path, memory="always")


def test_an_empty_folder_is_an_error(tmp_path: Path):
    with pytest.raises(PipelineError, match="holds no videos to train on"):
        opened(tmp_path)


def test_windows_to_measure_on_are_looked_for_in_all_videos(tmp_path: Path):
    """One of two videos is chosen; that it is broken says nothing of the other."""
    (tmp_path / "a.mkv").write_bytes(b"no video")
    write_telling(tmp_path / "b.mkv", 1, 40)
    (clip,) = held_out_clips(source_of(tmp_path), RunConfig(), size=SIDE, most=1)
    assert clip.shape == (33, SIDE, SIDE, 3)
