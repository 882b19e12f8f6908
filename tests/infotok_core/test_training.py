"""The training loop on clips that take no time: what it lowers, keeps, repeats and resumes."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import pytest
import torch
from training_helpers import Ramps, small_stage

from infotok_core.config import TokenizerConfig, mini
from infotok_core.growing import grow, start_as_identity
from infotok_core.network import Network, build_network
from infotok_core.recipe import Stage
from infotok_core.training import (
    Progress,
    Trainer,
    TrainingError,
)

RESUMED = small_stage(router="elbo", steps=5, log_every=3)


def with_router(config: TokenizerConfig, seed: int = 3) -> Network:
    return build_network(dataclasses.replace(config, latent_router=4), seed=seed)


def fresh(config: TokenizerConfig) -> Network:
    network = with_router(config)
    start_as_identity(network)
    return network


def run(trainer: Trainer) -> list[Progress]:
    reports: list[Progress] = []
    assert trainer.run(Ramps(trainer.stage), report=reports.append)
    return reports


def weights(network: Network) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def changed(before: dict[str, torch.Tensor], network: Network) -> set[str]:
    after = network.state_dict()
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("part", ["base", "all", "compressor", "latent_router"])
def test_a_few_steps_lower_the_loss(toy_config: TokenizerConfig, part: str):
    stage = small_stage(part=part, steps=8, learning_rate=1e-2, log_every=1, rates=(1.0,))
    # Only a compressor that is not silent has something to get rid of.
    network = with_router(toy_config) if part == "compressor" else fresh(toy_config)
    reports: list[Progress] = []
    Trainer.start(network, stage).run(Ramps(stage, still=True), report=reports.append)
    # Measured in the logarithm, from far off: the head needs longer.
    wanted = 0.99 if part == "latent_router" else 0.95
    losses = [item.metrics["loss"] for item in reports]
    assert min(losses[-2:]) < wanted * losses[0]


@pytest.mark.parametrize(
    ("part", "trained"),
    [
        ("base", {"encoder", "decoder", "quant_conv", "post_quant_conv"}),
        (
            "compressor",
            {"vit_encoder", "vit_decoder", "temporal_embed", "vit_conv", "post_vit_conv"},
        ),
        ("latent_router", {"information_head"}),
    ],
)
def test_a_stage_trains_its_part_and_leaves_the_rest_bit_for_bit(
    toy_config: TokenizerConfig, part: str, trained: set[str]
):
    network = with_router(toy_config)
    before = weights(network)
    trainer = Trainer.start(network, small_stage(part=part, steps=2))
    run(trainer)
    assert changed(before, network) == trained
    given = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None}
    assert given == trained
    assert changed(before, trainer.averaged) == trained


@pytest.fixture(scope="module")
def whole(toy_config: TokenizerConfig) -> tuple[list[Progress], list[bytes]]:
    """What an undisturbed run reports, and its state after each step, on disk."""
    states: list[bytes] = []
    trainer = Trainer.start(fresh(toy_config), RESUMED)
    keep = {"should_save": lambda: True, "save": lambda: states.append(stored(trainer))}
    reports: list[Progress] = []
    assert trainer.run(Ramps(RESUMED), report=reports.append, **keep)
    undisturbed = run(Trainer.start(fresh(toy_config), RESUMED))
    assert undisturbed == reports
    return reports, [*states, stored(trainer)]


def stored(trainer: Trainer) -> bytes:
    file = io.BytesIO()
    torch.save(trainer.state(), file)
    return file.getvalue()


def assert_same(ours: Any, theirs: Any) -> None:
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs)
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_same(ours[key], theirs[key])
    elif isinstance(ours, list | tuple):
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    else:
        assert ours == theirs


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_a_resumed_run_is_the_run_that_was_never_stopped(
    toy_config: TokenizerConfig, whole: tuple[list[Progress], list[bytes]], step: int
):
    wanted, states = whole
    # Other weights than the first start had: all of them come from the state.
    trainer = Trainer.start(with_router(toy_config, seed=8), RESUMED)
    trainer.resume(torch.load(io.BytesIO(states[step - 1]), weights_only=True))
    assert trainer.step == step
    assert run(trainer) == [item for item in wanted if item.step > step]
    last = torch.load(io.BytesIO(states[-1]), weights_only=True)
    assert_same(last, trainer.state())


def test_a_run_that_is_asked_to_stop_does_so_after_the_step_and_saves_once(
    toy_config: TokenizerConfig,
):
    trainer = Trainer.start(fresh(toy_config), small_stage(steps=60, log_every=50))
    reports: list[Progress] = []
    saved: list[int] = []
    finished = trainer.run(
        Ramps(trainer.stage),
        report=reports.append,
        should_stop=lambda: trainer.step > 2,
        save=lambda: saved.append(trainer.step),
    )
    assert not finished
    assert (reports, saved, trainer.step) == ([], [3], 3)


def test_the_averaged_weights_follow_the_trained_ones(toy_config: TokenizerConfig):
    network = fresh(toy_config)
    before = weights(network)
    trainer = Trainer.start(network, small_stage(ema_decay=0.9, steps=4))
    run(trainer)
    name = "decoder.conv_in.0.conv3d.weight"
    moved = (network.state_dict()[name] - before[name]).norm()
    followed = (trainer.averaged.state_dict()[name] - before[name]).norm()
    assert 0 < followed < moved
    assert not any(p.requires_grad for p in trainer.averaged.parameters())


def test_a_loss_that_is_no_number_ends_the_run(toy_config: TokenizerConfig):
    network = fresh(toy_config)
    with torch.no_grad():
        network.quant_conv.conv3d.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="by step 2"):
        run(Trainer.start(network, small_stage()))
    # It is not what a state would be taken of.
    with pytest.raises(TrainingError, match="by step 1"):
        Trainer.start(network, small_stage()).run(
            Ramps(small_stage()), report=lambda _: None, should_save=lambda: True
        )


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"perceptual_weight": 0.1}, "perceptual"), ({"part": "latent_router"}, "latent_router")],
)
def test_what_the_network_lacks_is_said_at_the_start(
    toy_config: TokenizerConfig, changes: dict[str, Any], named: str
):
    network = build_network(toy_config, seed=0)
    with pytest.raises(ValueError, match=named):
        Trainer.start(network, small_stage(**changes))


def test_a_base_without_transformers_can_only_train_itself(toy_config: TokenizerConfig):
    network = build_network(dataclasses.replace(toy_config, transformer=None), seed=0)
    run(Trainer.start(network, small_stage(part="base", steps=2)))
    with pytest.raises(ValueError, match="no transformers"):
        Trainer.start(network, Stage(steps=1))


@pytest.mark.parametrize(("changes", "named"), [({"frames": 6}, "1 . 4k"), ({"crop": 20}, "of 8")])
def test_a_shape_the_network_does_not_take_is_said_at_the_start(
    toy_config: TokenizerConfig, changes: dict[str, Any], named: str
):
    with pytest.raises(ValueError, match=named):
        Trainer.start(fresh(toy_config), small_stage(**changes))


def test_silenced_transformers_pass_everything_through():
    # In the mini network the width of the transformers is that of the latent.
    network = build_network(mini(), seed=0).eval()
    start_as_identity(network)
    latent = torch.rand(1, 128, 2, 2, 2)
    with torch.no_grad():
        assert torch.equal(network.compress(latent), latent)
        assert torch.equal(network.decompress(latent), latent)


def test_a_base_without_transformers_has_nothing_to_silence(toy_config: TokenizerConfig):
    network = build_network(dataclasses.replace(toy_config, transformer=None), seed=0)
    before = weights(network)
    start_as_identity(network)
    assert not changed(before, network)


def test_a_deeper_network_starts_as_the_shallower_one(toy_config: TokenizerConfig):
    inner = toy_config.transformer
    assert inner is not None
    small = build_network(toy_config, seed=1).eval()
    deeper = dataclasses.replace(
        toy_config,
        num_res_blocks=2,
        latent_router=4,
        transformer=dataclasses.replace(
            inner, encoder_layers=3, decoder_layers=3, mask_embedding=True
        ),
    )
    large = build_network(deeper, seed=2).eval()
    grow(small, large)
    video = Ramps(small_stage(crop=32)).batch(0).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    keep = torch.rand(2, 2, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    with torch.no_grad():
        assert torch.equal(small(video, keep), large(video, keep))


def test_a_latent_router_of_another_width_starts_anew(toy_config: TokenizerConfig):
    small = build_network(dataclasses.replace(toy_config, latent_router=4), seed=1)
    large = build_network(dataclasses.replace(toy_config, latent_router=8), seed=2)
    head = {n: p.clone() for n, p in large.named_parameters() if n.startswith("information_head")}
    grow(small, large)
    for name, parameter in large.named_parameters():
        given = dict(small.named_parameters())[name] if name not in head else head[name]
        assert torch.equal(parameter, given)


def test_a_network_of_other_widths_is_no_start(toy_config: TokenizerConfig):
    wider = build_network(dataclasses.replace(toy_config, channels=8), seed=0)
    with pytest.raises(ValueError, match="no place"):
        grow(build_network(toy_config, seed=0), wider)
