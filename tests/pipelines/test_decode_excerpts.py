"""A few windows from somewhere in a video, and squares of its own resolution."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from decoding_helpers import decode_here, request_for
from hypothesis import given
from hypothesis import strategies as st
from videos import write_video

from pipelines.decode import DecoderProcess, Patch, Segment
from pipelines.geometry import patch_box

SHARES = st.floats(0, 1, exclude_max=True)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("videos") / "v.mp4", 50)


@given(SHARES, st.integers(1, 20), st.integers(0, 500), st.integers(1, 40))
def test_a_segment_lies_inside_and_reaches_both_ends(
    share: float, num_windows: int, num_frames: int, step: int
):
    segment = Segment(share=share, num_windows=num_windows)
    windows = segment.windows(num_frames, step)
    last = max(num_frames // step - num_windows, 0)
    assert len(windows) == num_windows
    assert 0 <= windows.start <= last
    ends = [
        Segment(share=end, num_windows=num_windows).windows(num_frames, step).start
        for end in (0.0, 1 - 2**-53)
    ]
    assert ends == [0, last]


@pytest.mark.parametrize(("share", "expected"), [(0.0, [0, 1]), (0.5, [2, 3]), (0.99, [3, 4])])
def test_a_segment_gives_its_windows_and_stops_there(
    video: Path, share: float, expected: list[int]
):
    # 50 frames are five whole windows of nine and a tail.
    every, _ = decode_here(request_for(video))
    some, decoding = decode_here(request_for(video, segment=Segment(share=share, num_windows=2)))
    assert [window.span.window_index for window in some] == expected
    for window in some:
        assert window.span == every[window.span.window_index].span
        assert np.array_equal(window.frames_THWC, every[window.span.window_index].frames_THWC)
    assert decoding.summary.num_frames_decoded <= (expected[-1] + 1) * 9 + 1


def test_a_video_shorter_than_its_segment_gives_what_it_has(video: Path):
    windows, _ = decode_here(request_for(video, segment=Segment(share=0.9, num_windows=20)))
    assert [window.span.window_index for window in windows] == list(range(6))
    assert windows[-1].span.num_frames == 5


def test_the_decoding_process_survives_a_segment(video: Path):
    with DecoderProcess() as decoder:
        request = request_for(video, segment=Segment(share=0.5, num_windows=1))
        first = [window.span.window_index for window in decoder.windows(request)]
        pid = decoder.pid
        assert [window.span.window_index for window in decoder.windows(request)] == first == [2]
        assert decoder.pid == pid


def coordinates(width: int, height: int) -> npt.NDArray[np.uint8]:
    """RGB: brightness grows to the right in red, downwards in green."""
    rows, columns = np.indices((height, width))
    return np.stack([columns * 2, rows * 2, np.full_like(rows, 128)], axis=2).astype(np.uint8)


@pytest.mark.parametrize(("across", "down"), [(0.0, 0.0), (0.5, 0.99), (0.99, 0.25)])
def test_a_patch_shows_the_source_as_it_is(tmp_path: Path, across: float, down: float):
    image = coordinates(120, 80)
    path = write_video(
        tmp_path / "v.mkv", [image] * 5, codec="libx264rgb", pix_fmt="rgb24",
        codec_options={"crf": "0"},
    )  # fmt: skip
    patch = Patch(side=32, across=across, down=down)
    (window,), decoding = decode_here(request_for(path, frames=5, patch=patch))
    x, y = int(across * 89), int(down * 49)
    assert np.array_equal(window.frames_THWC[2], image[y : y + 32, x : x + 32])
    assert decoding.facts is not None
    assert (decoding.facts.width, decoding.facts.height) == (32, 32)


def test_a_patch_larger_than_the_source_is_its_largest_square_enlarged(tmp_path: Path):
    path = write_video(tmp_path / "v.mp4", [coordinates(120, 80)] * 5)
    patch = Patch(side=128, across=0.99, down=0.5)
    (window,), _ = decode_here(request_for(path, frames=5, patch=patch))
    assert window.frames_THWC.shape == (5, 128, 128, 3)
    assert abs(int(window.frames_THWC[2, 64, 2, 0]) - 80) < 12


@given(
    st.integers(1, 2000), st.integers(1, 2000), st.fractions(Fraction(1, 50), 50),
    st.integers(1, 500), SHARES, SHARES,
)  # fmt: skip
def test_a_patch_lies_inside_its_frame(
    width: int, height: int, aspect: Fraction, side: int, across: float, down: float
):
    box = patch_box(width, height, aspect=aspect, side=side, place=(across, down))
    assert box.width >= 1 <= box.height <= side
    assert 0 <= box.x <= width - box.width
    assert 0 <= box.y <= height - box.height
    assert box.x % 2 == box.y % 2 == 0
