from __future__ import annotations

import numpy as np
import pytest

from infotok_core.router import num_tokens
from infotok_core.sliding import SlidingRules, analyse_video, mean_elbo, reconstruct_video


@pytest.fixture
def film() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 20, 30, 3), dtype=np.uint8)


def test_padded_cells_get_no_tokens_by_default(toy_tokenizer, film):
    rules = SlidingRules(window=13, overlap=2)
    windows = analyse_video(toy_tokenizer, film, rules=rules)
    assert [w.frames for w in windows] == [range(13), range(11, 20)]
    result = reconstruct_video(toy_tokenizer, windows, rules=rules, strategy="static", target=0.5)
    assert result.video_THWC.shape == film.shape
    for window, mask in zip(windows, result.masks, strict=True):
        inside = mask[window.content]
        assert inside.sum() == mask.sum() == num_tokens(0.5, inside.size)
    assert result.rates.tolist() == [0.5, 0.5]


def test_a_border_cell_with_one_real_pixel_counts(toy_tokenizer):
    film = np.zeros((5, 20, 34, 3), dtype=np.uint8)  # 32 x 48: 6 rows and 7 columns in front
    (window,) = analyse_video(toy_tokenizer, film, rules=SlidingRules(window=5))
    assert window.information_thw[window.content].shape == (2, 4, 6)
    narrow = np.zeros((5, 16, 24, 3), dtype=np.uint8)  # 16 x 32: 4 columns on each side
    (window,) = analyse_video(toy_tokenizer, narrow, rules=SlidingRules(window=5))
    assert window.information_thw[window.content].shape == (2, 2, 4)
    far = np.zeros((2, 1, 16, 3), dtype=np.uint8)  # 16 rows, the real one is row 7
    (window,) = analyse_video(toy_tokenizer, far, rules=SlidingRules(window=5))
    assert window.information_thw[window.content].shape == (2, 1, 2)


def test_the_reference_scores_padding_and_drops_the_minimum(toy_tokenizer, film):
    rules = SlidingRules.reference(window=9, overlap=1)
    windows = analyse_video(toy_tokenizer, film, rules=rules)
    assert all(w.information_thw[w.content].shape == w.information_thw.shape for w in windows)
    result = reconstruct_video(toy_tokenizer, windows, rules=rules, strategy="static", target=1.0)
    assert all(mask.sum() == mask.size - 1 for mask in result.masks)
    assert result.video_THWC.shape == film.shape


def test_windows_without_overlap_are_simply_joined(toy_tokenizer, film):
    rules = SlidingRules(window=5)
    windows = analyse_video(toy_tokenizer, film, rules=rules)
    joined = reconstruct_video(toy_tokenizer, windows, rules=rules, strategy="static", target=1.0)
    alone = reconstruct_video(
        toy_tokenizer, windows[1:2], rules=rules, strategy="static", target=1.0
    )
    assert np.array_equal(joined.video_THWC[5:10], alone.video_THWC)


def test_each_window_has_the_rate_of_its_own_information(toy_tokenizer, film):
    rules = SlidingRules(window=9, overlap=1)
    windows = analyse_video(toy_tokenizer, film, rules=rules)
    expected = mean_elbo(windows, rules=SlidingRules(window=9))
    result = reconstruct_video(
        toy_tokenizer, windows, rules=rules, strategy="global_elbo", target=0.5, expected=expected
    )
    wanted = [0.5 * float(w.elbo) / expected for w in windows]
    assert result.rates.tolist() == pytest.approx(wanted, rel=1e-6)
    assert np.mean(result.rates) == pytest.approx(0.5, rel=1e-6)


def test_no_windows_is_an_error(toy_tokenizer):
    with pytest.raises(ValueError, match="no windows"):
        reconstruct_video(toy_tokenizer, [], rules=SlidingRules(), strategy="static", target=0.5)
