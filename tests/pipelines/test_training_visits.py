"""One visit to a video: which clips it gives, and that it always gives the same."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_corpora import (
    FRAME_STEP,
    SIDE,
    origin,
    small_config,
    telling_frames,
    videos_of,
    write_telling,
)

from pipelines.training_videos import TrainingVideos
from pipelines.training_visits import StoppedError, VisitDecoder, cut_clip

NUM_FRAMES = 40


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainingVideos]:
    folder = tmp_path_factory.mktemp("videos")
    write_telling(folder / "a.mkv", 0, NUM_FRAMES)
    write_telling(folder / "b_wide.mkv", 1, 12, width=160, height=2 * SIDE)
    write_telling(folder / "c_short.mkv", 2, 4)
    (folder / "d_broken.mkv").write_bytes(b"no video")
    videos = videos_of(folder)
    yield videos
    videos.close()


def decoder(videos: TrainingVideos, **changes: object) -> VisitDecoder:
    return VisitDecoder(videos, small_config(**changes), is_stopped=lambda: False)


def test_clips_are_pieces_of_the_video_turned_half_of_the_time(videos: TrainingVideos):
    visits = decoder(videos, windows_per_visit=3, crops_per_window=4)
    clips = [clip for visit in range(25) for clip in visits.clips(visit, 0)]
    assert len(clips) == 25 * 12
    assert all(clip.shape == (5, 16, 16, 3) and clip.flags.c_contiguous for clip in clips)
    origins = [origin(clip) for clip in clips]
    assert {found.video for found in origins} == {0}
    for turned in (
        [found.is_backwards for found in origins],
        [found.is_mirrored for found in origins],
        [found.is_backwards == found.is_mirrored for found in origins],
    ):
        assert 0.4 < np.mean(turned) < 0.6
    lefts = {min(found.left, found.right) for found in origins}
    assert lefts == set(range(SIDE - 16 + 1))
    starts = [min(found.first_frame, found.last_frame) for found in origins]
    assert min(starts) == 0
    assert max(starts) == NUM_FRAMES - 5
    assert len(set(starts)) > 25


def test_the_same_visit_gives_the_same_clips_and_another_gives_others(videos: TrainingVideos):
    first, again = (decoder(videos).clips(7, 0) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, decoder(videos).clips(8, 0))
    assert not np.array_equal(first, decoder(videos, seed=1).clips(7, 0))


def test_some_visits_cut_straight_from_the_source(videos: TrainingVideos):
    visits = decoder(videos, source_share=0.3)
    # The source has twice the size: scaled down, neighbours differ by two columns.
    steps = [
        abs(int(clip[0, 8, 8, 2]) - int(clip[0, 8, 7, 2]))
        for visit in range(40)
        for clip in visits.clips(visit, 1)
    ]
    assert set(steps) <= {1, 2, 3}
    assert 0.1 < np.mean([step == 1 for step in steps]) < 0.5


def test_zoomed_visits_show_more_of_the_picture(videos: TrainingVideos):
    visits = decoder(videos, zoom_share=1.0, zoom_max=3.0)
    spans = [
        abs(int(clip[0, 8, 15, 2]) - int(clip[0, 8, 0, 2]))
        for visit in range(20)
        for clip in visits.clips(visit, 0)
    ]
    # Sizes go in steps of 16: of the 48 columns a crop of 16 shows a third, a half, or all.
    assert min(spans) == 15
    assert max(spans) > 40


def test_a_broken_and_a_short_video_give_nothing_and_are_named_once(
    videos: TrainingVideos, caplog: pytest.LogCaptureFixture
):
    visits = decoder(videos)
    with caplog.at_level(logging.WARNING):
        assert [visits.clips(visit, video) for visit in (0, 1) for video in (2, 3)] == [[]] * 4
    assert sorted(caplog.messages) == [
        "c_short.mkv is left out: TOO_SHORT (4 frames, a clip has 5)",
        "d_broken.mkv is left out: NOT_A_VIDEO (no demuxer recognises the bytes)",
    ]


def test_a_container_that_promises_more_than_there_is_is_cut_where_it_has_frames(tmp_path: Path):
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        video = container.add_stream("libx264rgb", rate=25, options={"crf": "0"})
        video.width, video.height, video.pix_fmt = SIDE, SIDE, "rgb24"
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        for image in telling_frames(0, 10):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(video.encode(None))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 80_000), np.int16), "s16", "mono")
        silence.sample_rate, silence.time_base, silence.pts = 8000, Fraction(1, 8000), 0
        container.mux(sound.encode(silence))
    videos = videos_of(tmp_path)
    visits = decoder(videos)
    for visit in range(5):
        for clip in visits.clips(visit, 0):
            assert origin(clip).video == 0
    videos.close()


def test_a_visit_that_nobody_wants_ends(videos: TrainingVideos):
    stopped = VisitDecoder(videos, small_config(), is_stopped=lambda: True)
    with pytest.raises(StoppedError):
        stopped.clips(0, 0)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.data())
def test_cutting_pieces_is_cutting_what_they_come_from(lengths: list[int], data: st.DataObject):
    whole = telling_frames(0, sum(lengths), width=12, height=9)
    pieces = np.split(whole, np.cumsum(lengths)[:-1])
    frames = data.draw(st.integers(1, len(whole)))
    start = data.draw(st.integers(0, len(whole) - frames))
    draws = np.array(data.draw(st.lists(st.sampled_from([0.0, 0.4, 0.6, 0.99]), min_size=4)))
    clip = cut_clip(pieces, start, frames=frames, crop=7, draws=draws)
    y, x = int(draws[0] * 3), int(draws[1] * 6)
    expected = whole[start : start + frames, y : y + 7, x : x + 7]
    expected = expected[:, :, ::-1] if draws[2] < 0.5 else expected
    expected = expected[::-1] if draws[3] < 0.5 else expected
    assert np.array_equal(clip, expected)
    assert FRAME_STEP * start in clip[:, 0, 0, 1]
