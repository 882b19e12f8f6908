"""Pictures beside each other, joined at seams, and written as files that any player opens."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio
from videos import decoded_rgb

from infotok_core.windows import blend, plan_windows
from pipelines.corpus_reader import StoredVideo
from pipelines.metrics import psnr_db, ssim
from pipelines.picture_files import SeamJoiner, file_stem
from pipelines.pictures import contact_sheet, kept_tokens, side_by_side
from pipelines.video_writer import VideoWriter, frame_rate, png_bytes
from schemas.ids import video_id


def test_kept_cells_are_bright_in_the_frames_of_their_latent_frame_alone():
    frames = np.full((6, 16, 24, 3), 100, np.uint8)
    mask = np.zeros((3, 2, 3), bool)
    mask[1, 1, 2] = True
    drawn = kept_tokens(frames, mask, temporal=4, spatial=8)
    bright = drawn.max(axis=3) > 60
    expected = np.zeros((6, 16, 24), bool)
    expected[1:5, 8:, 16:] = True
    np.testing.assert_array_equal(bright, expected)
    with pytest.raises(ValueError, match="does not cover"):
        kept_tokens(frames, mask[:2], temporal=4, spatial=8)


def test_panels_keep_their_pixels():
    panels = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 24, 3)).astype(np.uint8)
    np.testing.assert_array_equal(side_by_side(panels)[1, :, 28:52], panels[1, 1])
    np.testing.assert_array_equal(contact_sheet(panels)[40:, 28:], panels[1, 2])


@given(
    st.integers(1, 40),
    st.integers(2, 12).flatmap(lambda w: st.tuples(st.just(w), st.integers(0, w - 1))),
)
def test_windows_of_one_video_join_to_that_video(num_frames: int, cut: tuple[int, int]):
    window, overlap = cut
    video = np.arange(num_frames, dtype=np.uint8).reshape(-1, 1, 1, 1)
    joiner, parts = SeamJoiner(), []
    for span in plan_windows(num_frames, window=window, overlap=overlap):
        parts.append(joiner.push(span.start, video[span.start : span.stop]))
    joined = np.concatenate([*parts, joiner.flush()])
    assert joined.shape == video.shape
    # The published cross-fade truncates: one value may be lost per seam.
    depth = -(-window // (window - overlap))
    assert np.abs(joined.astype(int) - video).max() <= depth


def test_seams_are_the_published_cross_fade():
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 256, (2, 9, 4, 4, 3)).astype(np.uint8)
    joiner = SeamJoiner()
    joiner.push(0, first)
    np.testing.assert_array_equal(joiner.push(6, second), first[:6])
    rest = joiner.flush()
    np.testing.assert_array_equal(rest[:3], blend(first[6:], second[:3]))
    np.testing.assert_array_equal(rest[3:], second[3:])
    with pytest.raises(ValueError, match="no window"):
        joiner.flush()


def test_psnr_is_the_mean_over_frames_and_finite():
    rng = np.random.default_rng(2)
    source = rng.integers(0, 256, (3, 16, 16, 3)).astype(np.uint8)
    other = rng.integers(0, 256, (3, 16, 16, 3)).astype(np.uint8)
    values = [peak_signal_noise_ratio(a, b) for a, b in zip(source, other, strict=True)]
    assert psnr_db(source, other) == pytest.approx(np.mean(values), abs=1e-4)
    assert psnr_db(source, source) == 100
    assert ssim(source, source) == pytest.approx(1)
    assert ssim(source, other) < 0.2
    with pytest.raises(ValueError, match="equally long"):
        psnr_db(source, other[:2])


names = st.text(min_size=1, max_size=300)


@given(st.lists(names, min_size=2, max_size=4, unique=True))
def test_file_names_are_safe_and_distinct(uris: list[str]):
    videos = [StoredVideo(video_id=video_id(uri), source=uri, keys=(), files=()) for uri in uris]
    stems = [file_stem(video) for video in videos]
    assert len({stem.casefold() for stem in stems}) == len(uris)
    for stem in stems:
        assert not set(stem) & set('/\\:*?"<>|\0 ')
        assert not stem.startswith((".", "-"))
        assert len(stem.encode()) < 200


def test_file_names_tell_which_video_it_is():
    video = StoredVideo(video_id="0123456789", source="day 1/cam.2/a.mkv", keys=(), files=())
    assert file_stem(video) == "day_1_cam.2_a-01234567"


@given(st.floats(1e-6, 1e6))
def test_any_rate_can_be_written(fps: float):
    rate = frame_rate(fps)
    assert 0 < rate <= 1000
    assert rate.denominator <= 1001
    if 1 <= fps <= 1000:
        assert float(rate) == pytest.approx(fps, rel=1e-3)


def test_usual_rates_are_exact():
    for rate in (Fraction(30000, 1001), Fraction(24000, 1001), Fraction(25, 2), Fraction(60)):
        assert frame_rate(float(np.float32(rate))) == rate


def test_colours_survive_the_file(tmp_path: Path):
    colours = list(itertools.product((30, 128, 220), repeat=3))
    frames = np.array(colours, np.uint8).repeat(64 * 64, axis=0).reshape(-1, 64, 64, 3)
    with VideoWriter(tmp_path / "c.mp4", width=64, height=64, fps=5) as writer:
        writer.write(frames)
    found, _ = decoded_rgb(tmp_path / "c.mp4")
    assert np.abs(found.astype(int) - frames).mean() < 3
    (tmp_path / "c.png").write_bytes(png_bytes(frames[7]))
    (image,), _ = decoded_rgb(tmp_path / "c.png")
    np.testing.assert_array_equal(image, frames[7])
