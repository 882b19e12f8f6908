from __future__ import annotations

import torch

from infotok_core.fsq import FSQ

LEVELS = (8, 8, 8, 5, 5, 5)


def grid(values: torch.Tensor) -> torch.Tensor:
    return values.view(1, -1, 1, 1)


def test_every_index_of_the_codebook_comes_back():
    quantizer = FSQ(LEVELS)
    indices = grid(torch.arange(64000, dtype=torch.int32))
    codes = quantizer.decode(indices)
    assert codes.abs().max() <= 1
    assert len(codes.squeeze().T.unique(dim=0)) == 64000
    # A latent that the bound carries exactly onto each code.
    reach = torch.tensor([(n - 1) * 1.001 / 2 for n in LEVELS]).view(1, -1, 1, 1, 1)
    offset = torch.tensor([0.5 if n % 2 == 0 else 0.0 for n in LEVELS]).view(1, -1, 1, 1, 1)
    centre = torch.tensor([n // 2 for n in LEVELS]).view(1, -1, 1, 1, 1)
    latent = torch.atanh((codes * centre + offset) / reach) - torch.atanh(offset / reach)
    quantized = quantizer(latent)
    assert quantized.indices_BTHW.dtype == torch.int32
    assert torch.equal(quantized.indices_BTHW, indices)
    torch.testing.assert_close(quantized.codes_BCTHW, codes, atol=1e-6, rtol=0)


def test_the_first_channel_is_the_least_significant_digit():
    assert FSQ(LEVELS).basis == (1, 8, 64, 512, 2560, 12800)
    assert FSQ(LEVELS).decode(grid(torch.tensor([32036]))).count_nonzero() == 0


def test_extreme_latents_stay_in_the_codebook():
    quantizer = FSQ(LEVELS)
    latent = torch.tensor([-1e9, -50.0, 50.0, 1e9]).view(1, 1, 4, 1, 1).expand(1, 6, 4, 1, 1)
    indices = quantizer(latent).indices_BTHW
    assert indices.flatten().tolist() == [0, 0, 63999, 63999]


def test_casting_the_network_does_not_move_a_token():
    latent = torch.randn(1, 6, 8, 16, 16) * 3
    wanted = FSQ(LEVELS)(latent).indices_BTHW
    assert torch.equal(FSQ(LEVELS).to(torch.bfloat16)(latent).indices_BTHW, wanted)


def test_the_gradient_passes_through_the_rounding():
    latent = torch.randn(1, 6, 1, 4, 4, requires_grad=True)
    FSQ(LEVELS)(latent).codes_BCTHW.sum().backward()
    assert latent.grad is not None
    assert (latent.grad > 0).all()
