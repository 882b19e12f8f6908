"""Which windows an evaluation looks at."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluations import FRAMES, SIDE, WINDOWS, write_evaluation_videos
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config import RunConfig, SpaceConfig, WindowConfig
from pipelines.decode import DecodeError
from pipelines.evaluation.clips import ClipSource, Sampler

CONFIG = RunConfig(window=WindowConfig(frames=FRAMES), space=SpaceConfig(size=SIDE))


def sample(lengths: list[int | None], max_windows: int | None) -> list[int]:
    """Windows taken of each video; None stands for a broken one, which yields two first."""
    names = [f"{index:03d}" for index in range(len(lengths))]
    sampler = Sampler(names, max_windows)
    taken = [0] * len(lengths)
    while parts := sampler.next_round():
        assert [part.uri for part in parts] == sorted(part.uri for part in parts)
        for part in parts:
            place = int(part.uri)
            assert part.first == taken[place]
            length = lengths[place]
            if length is None:
                sampler.failed(part.uri)
                continue
            stop = length if part.stop is None else min(part.stop, length)
            sampler.found(part.uri, stop - part.first)
            taken[place] = stop
    return taken


lengths = st.lists(st.none() | st.integers(0, 9), min_size=1, max_size=20)


@given(lengths)
def test_without_a_limit_every_window_is_taken(videos: list[int | None]):
    assert sample(videos, None) == [length or 0 for length in videos]


@given(lengths, st.integers(1, 60))
def test_as_many_windows_as_asked_are_spread_evenly(videos: list[int | None], wanted: int):
    taken = sample(videos, wanted)
    available = [length or 0 for length in videos]
    assert sum(taken) == min(wanted, sum(available))
    # A video has fewer than another, by more than one, only where it has no more to give.
    for mine, length in zip(taken, available, strict=True):
        assert mine == length or mine >= max(taken) - 1
    assert sample(videos, wanted) == taken


def test_few_windows_of_many_videos_come_from_all_over_the_listing():
    taken = sample([5] * 16, 4)
    assert [place for place, count in enumerate(taken) if count] == [0, 4, 8, 12]


def test_a_broken_video_gives_back_what_it_gave():
    sampler = Sampler(["a", "b"], 4)
    for part in sampler.next_round():
        sampler.found(part.uri, 2)
    assert sampler.next_round() == []
    sampler = Sampler(["a", "b"], 5)
    sampler.next_round()
    sampler.found("a", 3)
    sampler.found("b", 1)
    (part,) = sampler.next_round()
    assert (part.uri, part.first, part.stop) == ("a", 3, 4)
    sampler.failed("a")
    assert sampler.next_round() == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_evaluation_videos(tmp_path_factory.mktemp("evaluation") / "videos")


def test_full_windows_are_streamed_from_any_place_to_any(folder: Path):
    with ClipSource(str(folder), CONFIG) as source:
        assert set(WINDOWS) < set(source.uris)
        for uri, count in WINDOWS.items():
            spans = [window.span for window in source.windows(uri)]
            assert [span.window_index for span in spans] == list(range(count))
            assert all(span.num_frames == FRAMES for span in spans)
        some = [w.span.window_index for w in source.windows("moving.mp4", first=1, stop=2)]
        assert some == [1]
        assert list(source.windows("moving.mp4", first=1, stop=1)) == []
        with pytest.raises(DecodeError, match="NOT_A_VIDEO"):
            list(source.windows("broken.mp4"))
        with pytest.raises(DecodeError, match="TOO_SHORT"):
            list(source.windows("short.mp4"))
