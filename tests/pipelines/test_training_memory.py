"""Clips of a corpus held in memory: pieces of it, by the number of the step alone."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.overrides import TorchFunctionMode
from training_corpora import (
    FRAME_STEP,
    SIDE,
    origin,
    small_config,
    telling_frames,
    videos_of,
    write_telling,
)

from pipelines.errors import InterruptedRunError
from pipelines.training_memory import MemoryClips, decode_corpus


def counting(frames: int, height: int, width: int) -> Tensor:
    """Every pixel says where it is: frame, row, column."""
    grid = np.indices((frames, height, width)).astype(np.uint8)
    return torch.from_numpy(grid.transpose(1, 2, 3, 0).copy())


def memory_of(*videos: Tensor, **changes: object) -> MemoryClips:
    return MemoryClips(list(videos), small_config(**changes), device="cpu")


@given(st.integers(1, 5), st.integers(1, 12), st.integers(0, 1000))
@settings(max_examples=25)
def test_a_clip_is_a_piece_of_a_video_perhaps_turned(frames: int, crop: int, seed: int):
    videos = counting(5, 12, 20), counting(7, 16, 12)
    batch = memory_of(*videos, frames=frames, crop=crop, seed=seed).batch(seed)
    assert batch.shape == (4, frames, crop, crop, 3)
    assert batch.dtype == torch.uint8
    for piece in batch.int():
        t, y, x = (int(piece[..., channel].min()) for channel in range(3))
        backwards = frames > 1 and bool(piece[0, 0, 0, 0] > piece[-1, 0, 0, 0])
        mirrored = crop > 1 and bool(piece[0, 0, 0, 2] > piece[0, 0, -1, 2])
        fitting = [video for video in videos if t + frames <= len(video)]
        expected = max(fitting, key=len).int()
        expected = counting(t + frames, y + crop, x + crop).int()[t:, y:, x:]
        expected = expected.flip([0] * backwards + [2] * mirrored)
        assert torch.equal(piece, expected)


def test_steps_may_be_asked_for_in_any_order():
    clips = memory_of(counting(9, 32, 32))
    batches = [clips.batch(step) for step in range(4)]
    assert torch.equal(memory_of(counting(9, 32, 32)).batch(2), batches[2])
    assert torch.equal(clips.batch(0), batches[0])
    assert not torch.equal(batches[0], batches[1])
    assert not torch.equal(memory_of(counting(9, 32, 32), seed=1).batch(0), batches[0])


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 10**6))
@settings(max_examples=20)
def test_ranks_see_together_what_one_process_sees(world_size: int, each: int, step: int):
    videos = [counting(9, 32, 40), counting(6, 40, 32)]
    zoom = {"zoom_share": 0.5, "zoom_max": 2.0}
    together = memory_of(*videos, batch_size=world_size * each, **zoom).batch(step)
    parts = [
        memory_of(*videos, batch_size=each, world_size=world_size, rank=rank, **zoom).batch(step)
        for rank in range(world_size)
    ]
    assert torch.equal(torch.cat(parts), together)


def test_every_place_direction_and_mirror_image_occurs_equally_often():
    clips = memory_of(torch.from_numpy(telling_frames(0, 12)), batch_size=1000)
    origins = [origin(clip) for clip in clips.batch(0).numpy()]
    for turned in (
        [found.is_backwards for found in origins],
        [found.is_mirrored for found in origins],
        [found.is_backwards == found.is_mirrored for found in origins],
    ):
        assert 0.45 < np.mean(turned) < 0.55
    starts = np.bincount([min(found.first_frame, found.last_frame) for found in origins])
    assert len(starts) == 8
    assert starts.min() > 80
    lefts = np.bincount([min(found.left, found.right) for found in origins])
    assert len(lefts) == SIDE - 16 + 1
    assert lefts.min() > 10


def test_larger_videos_are_likelier_and_small_ones_are_left_out():
    def plain(value: int, *shape: int) -> Tensor:
        return torch.full((*shape, 3), value, dtype=torch.uint8)

    videos = plain(1, 5, 16, 16), plain(2, 20, 16, 16), plain(3, 50, 8, 99), plain(4, 4, 90, 90)
    values, counts = (
        memory_of(*videos, batch_size=1000).batch(0)[:, 0, 0, 0, 0].unique(return_counts=True)
    )
    assert values.tolist() == [1, 2]
    assert counts[1] / counts[0] == pytest.approx(4, rel=0.2)


def test_no_video_that_is_large_enough_is_an_error():
    with pytest.raises(ValueError, match="no video holds 5 frames of 16x16"):
        memory_of(counting(4, 64, 64), counting(9, 15, 64))


def test_some_steps_show_more_of_the_picture_scaled_down():
    clips = memory_of(
        torch.from_numpy(telling_frames(0, 12)), zoom_share=0.4, zoom_max=2.5, batch_size=3
    )
    zooms: list[float] = []
    for step in range(100):
        batch = clips.batch(step).float()
        columns = batch[:, 0, 8, :, 2]
        assert batch.shape == (3, 5, 16, 16, 3)
        # Between the ends, where the filter sees beyond nothing.
        step_width = (columns[:, 12] - columns[:, 3]).abs() / 9
        assert step_width.max() - step_width.min() < 0.25
        assert (batch[..., 0] == batch[0, 0, 0, 0, 0]).all()
        assert (batch[:, 1:, 8, 8, 1] - batch[:, :-1, 8, 8, 1]).abs().eq(FRAME_STEP).all()
        zooms.append(float(step_width.mean()))
    zoomed = [zoom for zoom in zooms if zoom > 1.01]
    assert 0.25 < len(zoomed) / len(zooms) < 0.55
    assert min(zooms) == 1
    assert 2.2 < max(zooms) <= 2.6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_telling(folder / "b.mkv", 1, 40)
    write_telling(folder / "a.mkv", 0, 7, width=80)
    write_telling(folder / "short.mkv", 2, 4)
    (folder / "broken.mkv").write_bytes(b"no video")
    return folder


def decode(
    folder: Path, limit_bytes: int | None = None, *, workers: int = 2
) -> list[Tensor] | None:
    return decode_corpus(
        videos_of(folder), small_config(), workers=workers, limit_bytes=limit_bytes
    )


def test_whole_videos_are_decoded_in_listing_order_and_broken_ones_named(
    folder: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING):
        decoded = decode(folder)
    assert decoded is not None
    first, second = (video.numpy() for video in decoded)
    assert np.array_equal(first, telling_frames(0, 7, width=80))
    assert np.array_equal(second, telling_frames(1, 40))
    assert sorted(caplog.messages) == [
        "broken.mkv is left out: NOT_A_VIDEO (no demuxer recognises the bytes)",
        "short.mkv is left out: TOO_SHORT (4 frames, a clip has 5)",
    ]
    clips = MemoryClips(decoded, small_config(batch_size=50), device="cpu")
    assert decoded == []
    assert {origin(clip).video for clip in clips.batch(0).numpy()} == {0, 1}


def test_decoding_ends_when_it_is_to_stop_and_says_where_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pipelines.training_memory._GLANCE_S", 0.001)
    monkeypatch.setattr("pipelines.training_memory._GLANCES_PER_LINE", 1)
    lines: list[str] = []
    with pytest.raises(InterruptedRunError):
        decode_corpus(
            videos_of(folder), small_config(), workers=1, say=lines.append,
            should_stop=lambda: bool(lines),
        )  # fmt: skip
    assert lines[0].startswith("decoded 0 of ")


def test_decoding_ends_when_the_corpus_is_larger_than_allowed(folder: Path):
    num_bytes = (7 * 80 + 40 * SIDE) * SIDE * 3
    assert decode(folder, limit_bytes=num_bytes - 1) is None
    # To the byte: the video that is left out for being short comes last, and counts at no moment.
    decoded = decode(folder, limit_bytes=num_bytes, workers=1)
    assert decoded is not None
    assert sum(video.nbytes for video in decoded) == num_bytes


class CountingCalls(TorchFunctionMode):
    """Counts what Python asks of torch; what that calls in turn is not counted."""

    num_calls = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.num_calls += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("zoom_share", [0.0, 1.0])
def test_a_large_batch_takes_no_more_calls_than_a_small_one(zoom_share: float):
    counts: list[int] = []
    for batch_size in (8, 256):
        videos = [counting(9, 32, 32 + 8 * index) for index in range(5)]
        clips = memory_of(*videos, batch_size=batch_size, zoom_share=zoom_share)
        with CountingCalls() as calls:
            clips.batch(0)
        counts.append(calls.num_calls)
    assert counts[0] == counts[1] < 60
