from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infotok_core.windows import blend, expected_elbo, pad, plan_padding, plan_windows, trim


@given(frames=st.integers(1, 400), window=st.integers(1, 90), data=st.data())
def test_windows_cover_each_frame_and_overlap_as_asked(frames, window, data):
    overlap = data.draw(st.integers(0, window - 1))
    spans = plan_windows(frames, window=window, overlap=overlap)
    assert spans[0].start == 0
    assert spans[-1].stop == frames
    for before, after in itertools.pairwise(spans):
        assert before.stop - after.start == overlap
        assert len(before) == window
        assert after.stop > before.stop


def test_the_published_demo_has_three_windows_in_38_frames():
    spans = plan_windows(38, window=17, overlap=3)
    assert spans == [range(17), range(14, 31), range(28, 38)]


def test_impossible_windows_are_refused():
    with pytest.raises(ValueError, match="overlap 4"):
        plan_windows(10, window=4, overlap=4)


@given(
    frames=st.integers(1, 40),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    rule=st.sampled_from(["tail", "reference"]),
)
def test_padding_fits_the_network_and_is_undone_by_trimming(frames, height, width, rule):
    video = np.random.default_rng(0).integers(1, 256, (frames, height, width, 3), dtype=np.uint8)
    padding = plan_padding(frames, height, width, rule=rule)
    padded = pad(video, padding)
    t, h, w, _ = padded.shape
    assert (t - 1) % (8 if rule == "reference" else 4) == 0
    assert h % 16 == 0
    assert w % 16 == 0
    assert np.array_equal(trim(padded, padding), video)
    assert np.count_nonzero(padded) == video.size // frames * t  # borders are black


def test_reference_padding_puts_the_smaller_half_in_front():
    padding = plan_padding(10, 61, 70, rule="reference")
    assert (padding.front, padding.back) == (3, 4)
    assert (padding.top, padding.bottom, padding.left, padding.right) == (1, 2, 5, 5)
    assert plan_padding(10, 60, 70).front == 0


def test_blending_truncates_the_published_shares():
    before = np.full((3, 1, 1, 3), 101, dtype=np.uint8)
    after = np.full((3, 1, 1, 3), 200, dtype=np.uint8)
    mixed = blend(before, after)
    assert mixed.dtype == np.uint8
    assert mixed[:, 0, 0, 0].tolist() == [125, 150, 175]  # 125.75, 150.5, 175.25
    assert np.array_equal(blend(before, before), before)


def test_overlapped_latent_frames_count_once_unless_the_reference_is_asked():
    first, second = np.ones((5, 2, 2), np.float32), np.full((5, 2, 2), 3.0, np.float32)
    second[0] = 100.0  # frame 0 is the only latent frame that 3 shared frames fill
    assert expected_elbo([first, second], overlap=3) == 2.0
    reference = expected_elbo([first, second], overlap=3, counting="reference")
    assert reference == pytest.approx((1 + 22.4) / 2)
    assert expected_elbo([first, second]) == reference
    with pytest.raises(ValueError, match="no windows"):
        expected_elbo([])
