"""Clips to train on: decoded by the pipeline's own decoder, cropped by a seed."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from videos import read_numbers, write_video

from pipelines.config import RunConfig, SourceConfig, SpaceConfig, StorageConfig, WindowConfig
from pipelines.errors import PipelineError
from pipelines.sources import open_source
from pipelines.training_data import decode_clips, random_crops

CONFIG = RunConfig(window=WindowConfig(frames=9), space=SpaceConfig(size=64))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "b.mp4", 20)
    write_video(folder / "a.mp4", 31)
    write_video(folder / "short.mp4", 5)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def test_full_windows_of_all_videos_come_in_listing_order(
    folder: Path, caplog: pytest.LogCaptureFixture
):
    source = open_source(str(folder), SourceConfig(), StorageConfig())
    with caplog.at_level(logging.WARNING):
        clips = decode_clips(source, CONFIG, workers=2)
    numbers = [read_numbers(clip.numpy()) for clip in clips]
    # a has three windows of nine frames and a tail, b two and a tail.
    starts = [0, 9, 18, 0, 9]
    assert numbers == [list(range(start, start + 9)) for start in starts]
    assert all(clip.dtype == torch.uint8 and clip.shape == (9, 64, 64, 3) for clip in clips)
    assert "broken.mp4 is left out: NOT_A_VIDEO" in caplog.text


def test_a_source_without_any_full_window_is_an_error(folder: Path):
    source = open_source(str(folder / "short.mp4"), SourceConfig(), StorageConfig())
    with pytest.raises(PipelineError, match="no window of 9 frames to train on"):
        decode_clips(source, CONFIG, workers=1)


def counting(frames: int, height: int, width: int) -> Tensor:
    """Every pixel says where it is: frame, row, column."""
    grid = np.indices((frames, height, width)).astype(np.uint8)
    return torch.from_numpy(grid.transpose(1, 2, 3, 0).copy())


@given(st.integers(1, 5), st.integers(1, 12), st.integers(0, 1000))
@settings(max_examples=25)
def test_a_crop_is_a_piece_of_a_clip_perhaps_turned(frames: int, crop: int, seed: int):
    clips = [counting(5, 12, 20), counting(7, 16, 12)]
    sample = random_crops(clips, frames=frames, crop=crop, batch_size=3, device="cpu", seed=seed)
    batch = sample()
    assert batch.shape == (3, frames, crop, crop, 3)
    assert batch.dtype == torch.uint8
    for piece in batch.int():
        # Time and columns may run backwards, rows may not.
        steps = [piece[1:, :, :, 0] - piece[:-1, :, :, 0], piece[:, :, 1:, 2] - piece[:, :, :-1, 2]]
        for step in steps:
            assert step.numel() == 0 or (step == step.flatten()[0]).all()
            assert step.abs().max() == 1 if step.numel() else True
        rows = piece[:, 1:, :, 1] - piece[:, :-1, :, 1]
        assert (rows == 1).all()


def test_the_same_seed_gives_the_same_crops_and_another_gives_others():
    clips = [counting(9, 32, 32)]

    def crops(seed: int) -> Tensor:
        sample = random_crops(clips, frames=5, crop=16, batch_size=4, device="cpu", seed=seed)
        return torch.stack([sample() for _ in range(3)])

    assert torch.equal(crops(1), crops(1))
    assert not torch.equal(crops(1), crops(2))
    first, second, _ = crops(1)
    assert not torch.equal(first, second)


def test_every_place_direction_and_mirror_image_occurs():
    sample = random_crops(
        [counting(3, 6, 6)], frames=2, crop=4, batch_size=200, device="cpu", seed=0
    )
    pieces = [tuple(piece[0, 0, 0].tolist()) for piece in sample()]
    ends = [tuple(piece[-1, 0, -1].tolist()) for piece in sample()]
    assert {row for _, row, _ in pieces} == {0, 1, 2}
    assert {time for time, _, _ in pieces} == {0, 1, 2}
    assert {column for _, _, column in pieces + ends} == set(range(6))


def test_larger_clips_are_likelier_and_small_ones_are_left_out():
    small, large, tiny = (
        torch.full((5, 16, 16, 3), 1, dtype=torch.uint8),
        torch.full((20, 16, 16, 3), 2, dtype=torch.uint8),
        torch.full((50, 8, 99, 3), 3, dtype=torch.uint8),
    )
    sample = random_crops(
        [small, large, tiny], frames=5, crop=16, batch_size=500, device="cpu", seed=0
    )
    values, counts = sample()[:, 0, 0, 0, 0].unique(return_counts=True)
    assert values.tolist() == [1, 2]
    assert counts[1] / counts[0] == pytest.approx(4, rel=0.4)


def test_no_clip_that_is_large_enough_is_an_error():
    with pytest.raises(ValueError, match="no clip holds 9 frames of 64x64"):
        random_crops([counting(9, 63, 64)], frames=9, crop=64, batch_size=1, device="cpu", seed=0)
