"""Information that is predicted from the latent: the same tokens, no decoder."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from infotok_core.checkpoint import Checkpoint, fingerprint, save_directory
from infotok_core.network import Network, build_network
from infotok_core.opening import identify_tokenizer, open_tokenizer
from infotok_core.tokenizer import Tokenizer


@pytest.fixture
def routed(toy_config) -> Network:
    """A network with a latent router that says something of every token."""
    network = build_network(dataclasses.replace(toy_config, latent_router=8), seed=3).eval()
    with torch.no_grad():
        network.information_head[-1].conv3d.weight.normal_()
    return network


def tokenizer_of(network: Network, **options) -> Tokenizer:
    checkpoint = Checkpoint(network=network, fingerprint=fingerprint(network), ema_loss=None)
    return Tokenizer(checkpoint, **options)


def test_predicted_information_comes_with_the_same_tokens(routed, toy_video):
    measured = tokenizer_of(routed).analyse(toy_video)
    tokenizer = tokenizer_of(routed, information="latent")
    predicted = tokenizer.analyse(toy_video)
    assert torch.equal(measured.codes_Bthw, predicted.codes_Bthw)
    assert predicted.information_Bthw.shape == predicted.codes_Bthw.shape
    assert predicted.information_Bthw.dtype == torch.float32
    assert predicted.information_Bthw.min() > 0
    assert predicted.information_Bthw.std() > 0
    assert not torch.equal(measured.information_Bthw, predicted.information_Bthw)
    assert tokenizer.fingerprint == tokenizer_of(routed).fingerprint
    keep = torch.ones_like(measured.codes_Bthw, dtype=torch.bool)
    shown = [t.reconstruct(measured.codes_Bthw, keep) for t in (tokenizer, tokenizer_of(routed))]
    assert torch.equal(*shown)


def test_a_prediction_takes_no_decoder(routed, toy_video):
    tokenizer = tokenizer_of(routed, information="latent")
    wanted = tokenizer.analyse(toy_video[:1])
    for part in ("decoder", "vit_decoder", "post_quant_conv"):
        delattr(tokenizer.network, part)
    found = tokenizer.analyse(toy_video[:1])
    assert torch.equal(found.information_Bthw, wanted.information_Bthw)


def test_a_checkpoint_without_a_latent_router_says_so(tmp_path, toy_network, routed):
    save_directory(toy_network, tmp_path / "plain", card="", dtype="float32")
    save_directory(routed, tmp_path / "routed", card="", dtype="float32")
    assert not identify_tokenizer(tmp_path / "plain").latent_router
    assert identify_tokenizer(tmp_path / "routed").latent_router
    open_tokenizer(tmp_path / "routed", information="latent")
    with pytest.raises(ValueError, match="has no latent router, so information = latent"):
        open_tokenizer(tmp_path / "plain", information="latent")


def test_programs_have_none(tmp_path):
    from programs import write_programs

    with pytest.raises(ValueError, match="programs have no latent router"):
        open_tokenizer(write_programs(tmp_path), information="latent")
    assert not identify_tokenizer(tmp_path).latent_router
