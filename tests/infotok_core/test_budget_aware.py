"""A compressor that is told what will be dropped."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from training_helpers import Ramps, small_stage

from infotok_core.checkpoint import Checkpoint, fingerprint, load_checkpoint, save_directory
from infotok_core.config import TokenizerConfig, from_dict, to_dict
from infotok_core.export import export_programs
from infotok_core.growing import grow
from infotok_core.network import Network, build_network
from infotok_core.opening import identify_tokenizer
from infotok_core.tokenizer import Tokenizer
from infotok_core.training import Trainer
from infotok_core.validation import reconstruct_clip


@pytest.fixture
def aware_config(toy_config: TokenizerConfig) -> TokenizerConfig:
    assert toy_config.transformer is not None
    inner = dataclasses.replace(toy_config.transformer, budget_aware=True)
    return dataclasses.replace(toy_config, transformer=inner)


@pytest.fixture
def aware(aware_config: TokenizerConfig) -> Network:
    """One whose vectors have been learned."""
    network = build_network(aware_config, seed=1).eval()
    with torch.no_grad():
        network.budget_embed.normal_()
    return network


def tokenizer_of(network: Network) -> Tokenizer:
    return Tokenizer(Checkpoint(network=network, fingerprint=fingerprint(network), ema_loss=None))


def keep_half(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(4)) < 0.5


def test_tokens_depend_on_the_mask_only_if_it_is_aware(aware, toy_network, toy_video):
    everything = torch.ones(3, 4, 4, 6, dtype=torch.bool)
    keep = keep_half((3, 4, 4, 6))
    for network, differs in ((aware, True), (toy_network, False)):
        tokenizer = tokenizer_of(network)
        codes = tokenizer.analyse(toy_video).codes_Bthw
        assert torch.equal(tokenizer.encode_kept(toy_video, everything), codes)
        assert torch.equal(tokenizer.encode_kept(toy_video, keep), codes) != differs


def test_which_and_how_many_are_told_apart(aware, toy_video):
    tokenizer = tokenizer_of(aware)
    keep = keep_half((3, 4, 4, 6))
    few = keep.clone()
    few[:, 3] = False
    wanted = tokenizer.encode_kept(toy_video, keep)
    with torch.no_grad():
        aware.budget_embed[1] = 0
    # Without the share, frames before the change cannot know of it: the network is causal.
    first, second = (tokenizer.encode_kept(toy_video, mask)[:, :3] for mask in (keep, few))
    assert torch.equal(first, second)
    assert not torch.equal(wanted[:, :3], first)


def test_every_way_to_reconstruct_asks_it_again(aware, toy_video):
    clip = toy_video[0, :, :32, :32]
    stage = small_stage(selection="r2l")
    shown = reconstruct_clip(aware, clip, (0.5,), stage)[0.5]
    keep = torch.zeros(1, 4, 4, 4, dtype=torch.bool)
    keep[..., :2, :] = True
    video = clip[None].permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    with torch.inference_mode():
        torch.testing.assert_close(shown, aware(video, keep).clamp(-1, 1))


def test_training_learns_the_vectors_and_an_old_network_grows_into_it(
    aware_config, toy_network, toy_video
):
    network = build_network(aware_config, seed=2).eval()
    grow(toy_network, network)
    video = torch.rand(1, 3, 5, 16, 16) * 2 - 1
    keep = keep_half((1, 2, 2, 2))
    with torch.no_grad():
        assert torch.equal(network(video, keep), toy_network(video, keep))
    stage = small_stage(part="compressor", steps=2, router="static", rates=(0.5,))
    trainer = Trainer.start(network, stage)
    trainer.run(Ramps(stage), report=lambda progress: None)
    assert (network.budget_embed.abs().sum(1) > 0).all()


def test_it_is_stored_by_name_and_an_export_is_refused(aware, aware_config, toy_config, tmp_path):
    assert "budget_aware" not in to_dict(toy_config)["transformer"]
    assert from_dict(to_dict(aware_config)) == aware_config
    save_directory(aware, tmp_path / "ours", card="", dtype="float32")
    assert load_checkpoint(tmp_path / "ours").network.is_budget_aware
    assert identify_tokenizer(tmp_path / "ours").budget_aware
    with pytest.raises(ValueError, match="depend on the mask: no program"):
        export_programs(tokenizer_of(aware), tmp_path / "programs")
