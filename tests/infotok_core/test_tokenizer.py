from __future__ import annotations

import pytest
import torch

from infotok_core.checkpoint import Checkpoint
from infotok_core.tokenizer import Tokenizer, from_uint8, to_uint8, valid_latent_frames


def test_analysis_does_not_depend_on_the_batch(toy_tokenizer, toy_video):
    together = toy_tokenizer.analyse(toy_video)
    for i in range(3):
        alone = toy_tokenizer.analyse(toy_video[i : i + 1])
        assert torch.equal(together.codes_Bthw[i], alone.codes_Bthw[0])
        assert torch.equal(together.information_Bthw[i], alone.information_Bthw[0])
    backwards = toy_tokenizer.analyse(toy_video.flip(0))
    assert torch.equal(backwards.information_Bthw.flip(0), together.information_Bthw)


def test_the_tokens_of_a_padded_tail_are_those_of_the_real_frames(toy_tokenizer, toy_video):
    padded = toy_video[:1].clone()
    padded[:, 6:] = padded[:, 5:6]
    alone = toy_tokenizer.analyse(toy_video[:1, :5]).codes_Bthw
    assert torch.equal(toy_tokenizer.analyse(padded).codes_Bthw[:, :2], alone)


@pytest.mark.parametrize(
    ("frames", "latent"), [(1, 1), (2, 2), (5, 2), (6, 3), (33, 9), (32, 9), (30, 9), (29, 8)]
)
def test_a_latent_frame_is_valid_as_soon_as_it_holds_a_frame(frames, latent):
    assert valid_latent_frames(frames, 4) == latent


def test_analysis_has_the_grid_it_announces(toy_tokenizer, toy_video):
    analysis = toy_tokenizer.analyse(toy_video)
    assert tuple(analysis.codes_Bthw.shape[1:]) == toy_tokenizer.latent_shape(13, 32, 48)
    assert analysis.codes_Bthw.dtype == torch.int32
    assert analysis.information_Bthw.dtype == torch.float32
    assert analysis.information_Bthw.min() >= 0


def test_reconstruction_ignores_the_codes_of_dropped_tokens(toy_tokenizer, toy_video):
    codes = toy_tokenizer.analyse(toy_video[:2]).codes_Bthw
    keep = torch.rand(codes.shape, generator=torch.Generator().manual_seed(0)) > 0.5
    shown = toy_tokenizer.reconstruct(codes, keep)
    assert shown.shape == toy_video[:2].shape
    assert shown.dtype == torch.uint8
    assert torch.equal(toy_tokenizer.reconstruct(codes.where(keep, 7), keep), shown)
    assert torch.equal(toy_tokenizer.reconstruct(codes[1:], keep[1:]), shown[1:])


def test_uint8_survives_the_scale_of_the_network():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16, 1).expand(-1, -1, -1, -1, 3)
    assert torch.equal(to_uint8(from_uint8(levels)), levels)
    assert to_uint8(torch.tensor([-9.0, 9.0]).view(1, 2, 1, 1, 1)).flatten().tolist() == [0, 255]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 12, 32, 32, 3), "1 \\+ 4k frames, not 12"),
        ((1, 13, 32, 30, 3), "multiples of 8, not 32x30"),
        ((1, 13, 32, 0, 3), "multiples of 8"),
        ((1, 197, 8, 8, 3), "exceeds the embeddings"),
        ((0, 13, 32, 32, 3), "at least one window"),
        ((13, 32, 32, 3), "expected uint8"),
    ],
)
def test_a_window_that_does_not_fit_is_refused(toy_tokenizer, shape, message):
    with pytest.raises(ValueError, match=message):
        toy_tokenizer.analyse(torch.zeros(shape, dtype=torch.uint8))


def test_other_dtypes_and_foreign_codes_are_refused(toy_tokenizer, toy_network):
    with pytest.raises(ValueError, match="float32"):
        toy_tokenizer.analyse(torch.zeros(1, 13, 32, 32, 3))
    keep = torch.ones(1, 1, 2, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"64000 exceed 0\.\.63999"):
        toy_tokenizer.reconstruct(torch.full((1, 1, 2, 2), 64000), keep)
    with pytest.raises(ValueError, match="not both"):
        toy_tokenizer.reconstruct(torch.zeros(1, 1, 2, 3, dtype=torch.int32), keep)
    checkpoint = Checkpoint(network=toy_network, fingerprint="", ema_loss=None)
    with pytest.raises(ValueError, match="float32 alone"):
        Tokenizer(checkpoint, dtype=torch.bfloat16)
