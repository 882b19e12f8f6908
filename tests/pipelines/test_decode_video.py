"""Real (synthetic) videos through the whole path, in this process."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from decoding_helpers import decode_here, failure_here, request_for, valid_frames
from videos import numbered_frame, read_number, read_numbers, write_video

from schemas.failures import FailureReason

VFR = [0, 10, 20, 200, 210, 220, 500, 540, 1000, 1001]


@pytest.fixture(scope="module")
def twenty(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("videos") / "twenty.mp4", 20)


def test_windows_hold_each_frame_once_and_the_tail_repeats_the_last(twenty):
    windows, decoding = decode_here(request_for(twenty))
    assert [read_numbers(w.frames_THWC) for w in windows] == [
        list(range(9)),
        list(range(9, 18)),
        [18, 19, 19, 19, 19, 19, 19, 19, 19],
    ]
    assert windows[-1].span.num_frames == 2
    assert decoding.summary.num_frames_decoded == 20
    assert decoding.summary.num_windows == 3


def test_spans_are_half_open_times_of_the_source(twenty):
    windows, _ = decode_here(request_for(twenty))
    spans = [(w.span.start_time_s, w.span.end_time_s) for w in windows]
    assert spans == [(0.0, 9 / 30), (9 / 30, 18 / 30), (18 / 30, 20 / 30)]


def test_overlapping_windows_share_frames(twenty):
    windows, _ = decode_here(request_for(twenty, overlap=3))
    starts = [read_number(w.frames_THWC[0]) for w in windows]
    assert starts == [w.span.start_frame for w in windows] == [0, 6, 12]


def test_a_dropped_tail_is_counted(twenty):
    windows, decoding = decode_here(request_for(twenty, tail="drop"))
    assert len(windows) == decoding.summary.num_windows == 2
    assert decoding.summary.num_frames_dropped == 2


def test_a_video_shorter_than_a_window_is_too_short_if_tails_are_dropped(twenty):
    failure = failure_here(request_for(twenty, frames=33, tail="drop"))
    assert failure.reason == FailureReason.TOO_SHORT


@pytest.mark.parametrize("extension", ["mp4", "mkv"])
@pytest.mark.parametrize("fps", [5.0, 12.5, 30.0, 60.0])
def test_another_rate_shows_the_last_frame_that_had_begun(tmp_path, extension, fps):
    path = tmp_path / f"vfr.{extension}"
    write_video(path, len(VFR), pts=VFR, time_base=Fraction(1, 1000))
    windows, decoding = decode_here(request_for(path, fps=fps))
    shown = [read_number(frame) for frame in valid_frames(windows)]
    instants = [1000 * k / fps for k in range(len(shown))]
    expected = [max(i for i, t in enumerate(VFR) if t <= instant) for instant in instants]
    assert shown == expected
    assert instants[-1] >= VFR[-2] - 1000 / fps
    assert decoding.facts is not None
    assert decoding.facts.fps == fps


def test_without_a_rate_a_variable_video_keeps_its_own_times(tmp_path):
    path = write_video(tmp_path / "vfr.mkv", len(VFR), pts=VFR, time_base=Fraction(1, 1000))
    windows, _ = decode_here(request_for(path))
    assert [read_number(frame) for frame in valid_frames(windows)] == list(range(len(VFR)))
    assert windows[0].span.start_time_s == 0.0
    assert windows[1].span.start_time_s == 1.001


def test_a_video_that_starts_late_keeps_the_timeline_of_the_source(tmp_path):
    times = [100_000 + 40 * k for k in range(10)]
    path = write_video(tmp_path / "late.mkv", 10, pts=times, time_base=Fraction(1, 1000))
    windows, _ = decode_here(request_for(path))
    assert windows[0].span.start_time_s == 100.0


def test_skipped_units_and_earlier_windows_are_counted_but_not_made(tmp_path):
    path = write_video(tmp_path / "long.mp4", 5 * 40)
    every, _ = decode_here(request_for(path, frames=5))
    some, decoding = decode_here(
        request_for(path, frames=5, skip_units=frozenset([1])), first_window=3
    )
    assert [w.span.window_index for w in some] == [*range(3, 16), *range(32, 40)]
    assert decoding.summary.num_windows == 40
    for window in some:
        twin = every[window.span.window_index]
        assert window.span == twin.span
        assert np.array_equal(window.frames_THWC, twin.frames_THWC)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_rotated_video_is_turned_upright(tmp_path, rotation):
    upright = [numbered_frame(n, width=64, height=96) for n in range(5)]
    coded = [np.rot90(image, -rotation // 90) for image in upright]
    path = write_video(tmp_path / "turned.mp4", coded, rotation=rotation)
    windows, decoding = decode_here(request_for(path, mode="keep", frames=5))
    assert windows[0].frames_THWC.shape == (5, 96, 64, 3)
    assert read_numbers(windows[0].frames_THWC) == [0, 1, 2, 3, 4]
    assert decoding.facts is not None
    assert (decoding.facts.width, decoding.facts.height) == (64, 96)
    assert decoding.facts.rotation == rotation
    assert decoding.summary.notes == ()


def test_an_odd_angle_is_rounded_and_noted(tmp_path):
    path = write_video(tmp_path / "tilted.mp4", 5, rotation=20)
    windows, decoding = decode_here(request_for(path))
    assert read_numbers(windows[0].frames_THWC[:5]) == [0, 1, 2, 3, 4]
    (note,) = decoding.summary.notes
    assert "rounded to a right angle" in note


def test_wide_pixels_are_shown_square(tmp_path):
    path = write_video(tmp_path / "sar.mp4", 5, aspect=Fraction(2))
    windows, _ = decode_here(request_for(path, mode="keep"))
    assert windows[0].frames_THWC.shape == (9, 64, 128, 3)
    assert read_number(windows[0].frames_THWC[3]) == 3


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "extension"),
    [
        ("libx264", "yuv444p", "mp4"),
        ("libx264", "yuv422p10le", "mkv"),
        ("libx264", "gray", "mp4"),
        ("ffv1", "yuv420p10le", "mkv"),
        ("ffv1", "gray", "mkv"),
        ("ffv1", "bgra", "mkv"),
        ("ffv1", "yuva420p", "mkv"),
        ("mpeg4", "yuv420p", "avi"),
        ("mpeg2video", "yuv420p", "ts"),
        ("mjpeg", "yuvj422p", "avi"),
        ("libvpx-vp9", "yuv420p", "webm"),
        ("gif", "rgb8", "gif"),
    ],
)
def test_every_kind_of_pixel_and_container_gives_the_same_numbers(
    tmp_path, codec, pix_fmt, extension
):
    options = {"crf": "20", "deadline": "realtime", "cpu-used": "8"} if "vpx" in codec else {}
    path = tmp_path / f"v.{extension}"
    rate = 25 if codec != "gif" else 10
    write_video(path, 12, codec=codec, pix_fmt=pix_fmt, rate=rate, codec_options=options)
    windows, decoding = decode_here(request_for(path))
    assert [read_number(frame) for frame in valid_frames(windows)] == list(range(12))
    assert decoding.facts is not None
    assert decoding.facts.fps == pytest.approx(rate, rel=0.01)


@pytest.mark.parametrize(("width", "height"), [(2, 2), (16, 1080), (1920, 16), (101, 77), (1, 1)])
@pytest.mark.parametrize("mode", ["crop", "keep"])
def test_odd_and_extreme_sizes_are_scaled(tmp_path, width, height, mode):
    frames = [np.full((height, width, 3), 30 * n, np.uint8) for n in range(5)]
    path = write_video(tmp_path / "odd.mkv", frames, codec="ffv1", pix_fmt="yuv444p")
    windows, _ = decode_here(request_for(path, mode=mode))
    shape = windows[0].frames_THWC.shape
    assert min(shape[1:3]) == 64
    assert shape[1] % 16 == shape[2] % 16 == 0
    levels = windows[0].frames_THWC[:5].mean(axis=(1, 2, 3))
    assert np.abs(levels - np.arange(5) * 30).max() < 2


def test_a_change_of_size_midway_keeps_the_output_and_is_noted(tmp_path):
    large = [numbered_frame(n, width=128, height=128) for n in range(6)]
    first = write_video(tmp_path / "a.ts", 6)
    second = write_video(tmp_path / "b.ts", large)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    windows, decoding = decode_here(request_for(joined))
    frames = valid_frames(windows)
    assert [read_number(frame) for frame in frames] == [*range(6), *range(6)]
    assert decoding.summary.notes == ("frame size, format or colour changes midway",)
    times = [w.span.start_time_s for w in windows]
    assert times == sorted(times)


def test_cover_art_is_not_a_video(tmp_path):
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        audio = container.add_stream("aac", rate=8000)
        art = container.add_stream("mjpeg", rate=1)
        art.width, art.height, art.pix_fmt = 32, 32, "yuvj420p"
        art.disposition = 0x400
        image = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
        container.mux(art.encode(image.reformat(format="yuvj420p")))
        container.mux(art.encode(None))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        silence.sample_rate = 8000
        container.mux(audio.encode(silence))
        container.mux(audio.encode(None))
    assert failure_here(request_for(path)).reason == FailureReason.NO_VIDEO_STREAM


def test_the_default_stream_then_the_largest_is_chosen(tmp_path):
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = []
        for side in (32, 64):
            stream = container.add_stream("ffv1", rate=10)
            stream.width = stream.height = side
            stream.pix_fmt = "yuv420p"
            stream.disposition = 0
            streams.append(stream)
        for stream in streams:
            image = numbered_frame(7, width=stream.width, height=stream.height)
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p")
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    _, decoding = decode_here(request_for(path))
    assert decoding.facts is not None
    assert decoding.facts.source_width == 64
