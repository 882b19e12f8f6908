"""Streamed clips: the same after any resume, on any number of ranks and workers."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import torch
from s3_tools import filesystem
from torch import Tensor
from training_corpora import origin, small_config, source_of, videos_of, write_telling

from pipelines.config import RunConfig, StorageConfig
from pipelines.errors import PipelineError
from pipelines.training_data import open_clips
from pipelines.training_lanes import LanePlan
from pipelines.training_stream import StreamClips

pytest_plugins = ["s3"]

STEPS = 4
"""Of two clips per lane: blocks have four, so they change within."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for index in range(5):
        write_telling(folder / f"{index}.mkv", index, 8 + 5 * index)
    return folder


@contextmanager
def stream(folder: Path, *, start_step: int = 0, **changes: object) -> Iterator[StreamClips]:
    clips = open_clips(
        source_of(folder), small_config(**changes), RunConfig(), device="cpu",
        start_step=start_step,
    )  # fmt: skip
    assert isinstance(clips, StreamClips)
    with closing(clips):
        yield clips


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[Tensor]:
    with stream(folder, workers=2) as clips:
        return [clips.batch(step) for step in range(STEPS)]


def test_clips_come_from_many_videos_and_differ(expected: list[Tensor]):
    assert all(batch.shape == (4, 5, 16, 16, 3) for batch in expected)
    assert all(batch.dtype == torch.uint8 for batch in expected)
    origins = [origin(clip) for batch in expected for clip in batch.numpy()]
    assert len({found.video for found in origins}) >= 4
    assert len(set(origins)) > 15


@pytest.mark.parametrize("start_step", range(1, STEPS))
def test_a_run_resumed_at_any_step_by_another_number_of_workers_sees_the_same(
    folder: Path, expected: list[Tensor], start_step: int
):
    with stream(folder, workers=1, start_step=start_step) as clips:
        for step in range(start_step, STEPS):
            assert torch.equal(clips.batch(step), expected[step])


@pytest.mark.parametrize(
    ("world_size", "ranks"), [(2, 2), (4, 2)], ids=["a lane for each rank", "ranks share a lane"]
)
def test_ranks_see_together_what_one_process_sees(
    folder: Path, expected: list[Tensor], world_size: int, ranks: int
):
    parts: list[Tensor] = []
    for rank in range(ranks):
        with stream(
            folder, start_step=3, rank=rank, world_size=world_size, batch_size=4 // world_size
        ) as clips:
            parts.append(clips.batch(3))
    together = torch.cat(parts)
    assert torch.equal(together, expected[3][: len(together)])


def test_steps_may_be_left_out_but_not_asked_for_twice(folder: Path, expected: list[Tensor]):
    with stream(folder) as clips:
        assert torch.equal(clips.batch(1), expected[1])
        assert torch.equal(clips.batch(3), expected[3])
        with pytest.raises(ValueError, match="step 3 was passed: the next one is 4"):
            clips.batch(3)


def test_a_broken_video_changes_no_clip_of_the_others(
    folder: Path, expected: list[Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "2.mkv").unlink()
    (tmp_path / "2.mkv").write_bytes(b"no video")
    with caplog.at_level(logging.WARNING), stream(tmp_path) as clips:
        batches = [clips.batch(step) for step in range(STEPS)]
    num_replaced = 0
    for batch, sound in zip(batches, expected, strict=True):
        for clip, twin in zip(batch.numpy(), sound.numpy(), strict=True):
            if origin(twin).video == 2:
                num_replaced += 1
                assert origin(clip).video != 2
            else:
                assert (clip == twin).all()
    assert num_replaced > 0
    named = [message for message in caplog.messages if "left out" in message]
    assert named == ["2.mkv is left out: NOT_A_VIDEO (no demuxer recognises the bytes)"]


def test_a_block_without_any_clip_takes_them_from_elsewhere(tmp_path: Path):
    for name in "abc":
        (tmp_path / f"{name}.mkv").write_bytes(b"no video")
    write_telling(tmp_path / "d.mkv", 3, 9)
    with stream(tmp_path, block_videos=1) as clips:
        origins = [origin(clip) for step in range(4) for clip in clips.batch(step).numpy()]
    assert {found.video for found in origins} == {3}


def test_a_corpus_without_any_clip_is_an_error(tmp_path: Path):
    (tmp_path / "a.mkv").write_bytes(b"no video")
    with (
        stream(tmp_path) as clips,
        pytest.raises(PipelineError, match="holds no video of 5 frames to train on"),
    ):
        clips.batch(0)


def test_a_store_that_fails_ends_the_run_with_the_name_of_the_video(tmp_path: Path):
    path = write_telling(tmp_path / "a.mkv", 0, 9)
    videos = videos_of(tmp_path)
    path.unlink()
    clips = StreamClips(videos, small_config(), workers=1, device="cpu")
    with closing(clips), pytest.raises(PipelineError, match=r"a\.mkv cannot be read: NOT_FOUND"):
        clips.batch(0)


def test_what_is_held_is_bounded_by_two_blocks_per_lane(folder: Path):
    with stream(folder, batch_size=2, workers=2) as clips:
        bound = 2 * 2 * LanePlan(small_config(batch_size=2), 5).clips_per_block
        held: list[int] = []
        for step in range(6):
            clips.batch(step)
            deadline = time.monotonic() + 20
            # Batches are put together ahead: a lane may go on to its next block at any moment.
            while clips.num_clips_held < bound and time.monotonic() < deadline:
                held.append(clips.num_clips_held)
                time.sleep(0.01)
            time.sleep(0.1)
            held.append(clips.num_clips_held)
    assert max(held) == bound


def test_a_process_that_forgets_to_close_ends_all_the_same(folder: Path):
    code = f"""
from training_corpora import small_config, source_of
from pipelines.config import RunConfig
from pipelines.training_data import open_clips
config = small_config(num_lanes=64, batch_size=64, block_videos=50)
clips = open_clips(source_of({str(folder)!r}), config, RunConfig(), device="cpu", start_step=0)
"""
    paths = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    # 6,400 visits are under way: it would take minutes to wait for them.
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)


@pytest.mark.s3
def test_a_bucket_gives_what_a_folder_gives(
    folder: Path, expected: list[Tensor], bucket: str, s3_endpoint: str, s3_config: StorageConfig
):
    for path in folder.iterdir():
        filesystem(s3_endpoint).put_file(str(path), f"{bucket}/in/{path.name}")
    config = RunConfig(source_storage=s3_config)
    clips = open_clips(
        source_of(f"{bucket}/in", s3_config), small_config(), config, device="cpu", start_step=1
    )
    with closing(clips):
        assert clips.kind == "stream"
        assert torch.equal(clips.batch(1), expected[1])
        assert torch.equal(clips.batch(2), expected[2])
