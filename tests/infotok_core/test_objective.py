"""The loss: what is asked of each clip, what is kept, what it costs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_helpers import Ramps, small_stage

from infotok_core.config import TokenizerConfig
from infotok_core.network import Network, build_network
from infotok_core.objective import METRICS, Objective, draw_betas, keep_tokens
from infotok_core.recipe import Stage
from infotok_core.router import num_tokens


def with_head(config: TokenizerConfig) -> TokenizerConfig:
    inner = config.transformer
    assert inner is not None
    inner = dataclasses.replace(inner, mask_embedding=True)
    return dataclasses.replace(config, latent_router=4, transformer=inner)


@pytest.fixture
def network(toy_config: TokenizerConfig) -> Network:
    return build_network(with_head(toy_config), seed=3)


@given(seed=st.integers(0, 99), step=st.integers(0, 10**6))
def test_betas_are_a_function_of_seed_and_step(seed: int, step: int):
    for router in ("flex", "uniform"):
        stage = small_stage(router=router, seed=seed, batch_size=64)
        betas = draw_betas(stage, step)
        assert (betas == draw_betas(stage, step)).all()
        assert (betas != draw_betas(stage, step + 1)).any()
        assert ((betas >= 1 / 16) & (betas <= 1)).all()
    assert set(draw_betas(small_stage(batch_size=64), step).tolist()) == {1.0, 0.75, 0.5, 0.25}
    assert set(draw_betas(small_stage(router="static", rates=(0.5,)), step).tolist()) == {0.5}


@pytest.mark.parametrize("selection", ["information", "r2l", "jump"])
@given(rate=st.integers(1, 96).map(lambda quarters: quarters / 96), seed=st.integers(0, 9))
def test_each_clip_keeps_its_own_share(selection: str, rate: float, seed: int):
    information = torch.rand(2, 2, 3, 4, generator=torch.Generator().manual_seed(seed))
    rates = torch.tensor([rate, 1.0])
    keep = keep_tokens(small_stage(selection=selection), information, rates)
    counts = keep.sum(dim=(1, 2, 3, 4)).tolist()
    assert keep.shape == (2, 1, 2, 3, 4)
    assert counts == [num_tokens(rates[0].item(), 24), 24]
    if selection == "information" and counts[0] < 24:
        kept = keep[0, 0]
        assert information[0][kept].min() > information[0][~kept].max()


@pytest.mark.parametrize("router", ["flex", "elbo", "static", "uniform"])
@pytest.mark.parametrize("selection", ["information", "r2l", "jump"])
def test_every_router_goes_with_every_selection(network: Network, router: str, selection: str):
    stage = small_stage(router=router, selection=selection, rates=(0.5,))
    objective = Objective(network, stage)
    loss, metrics = objective(Ramps(stage).batch(0), torch.full((2,), 0.5))
    loss.backward()
    named = dict(zip(METRICS, metrics.tolist(), strict=True))
    assert named["loss"] == pytest.approx(named["l1"])
    assert named["rate"] == pytest.approx(0.5, abs=1e-6 if router != "elbo" else 0.13)


def test_the_elbo_router_starts_from_the_mean_of_its_first_batch(network: Network):
    stage = small_stage(router="elbo", batch_size=4)
    objective = Objective(network, stage)
    beta = torch.full((4,), 0.5)
    first = torch.rand(4, 2, 2, 2, generator=torch.Generator().manual_seed(0)) + 0.5
    rates = objective._rates(first, beta)
    # Equation 4 with E[ELBO] the mean of this batch: nothing of the zero it started from.
    torch.testing.assert_close(rates, 0.5 * first.mean(dim=(1, 2, 3)) / first.mean())
    assert rates.mean() == pytest.approx(0.5, abs=1e-5)
    second = torch.ones(4, 2, 2, 2)
    second[0], second[1] = 1e-4, 9
    low, high, usual, _ = objective._rates(second, beta).tolist()
    expected = (0.99 * first.mean() + second.mean()) / 1.99
    assert (low, high) == (1 / 16, 1)
    assert usual == pytest.approx(0.5 / expected.item(), rel=1e-4)


def test_a_base_stage_never_asks_the_transformers(network: Network):
    stage = small_stage(part="base")
    loss, metrics = Objective(network, stage)(Ramps(stage).batch(0), torch.ones(2))
    loss.backward()
    assert metrics[2] == 1
    assert all(p.grad is None for name, p in network.named_parameters() if name.startswith("vit_"))


def test_the_head_learns_from_the_frozen_rest_alone(network: Network):
    stage = small_stage(part="latent_router")
    loss, _ = Objective(network, stage)(Ramps(stage).batch(0), torch.ones(2))
    loss.backward()
    touched = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None}
    assert touched == {"information_head"}


def test_a_seam_costs_where_two_windows_disagree(network: Network):
    plain = small_stage(rates=(1.0,))
    seam = small_stage(rates=(1.0,), seam_weight=1.0, seam_frames=2)
    clips = Ramps(seam).batch(0)
    _, metrics = Objective(network, seam)(clips, torch.ones(2))
    assert metrics[0] > metrics[1]
    still = clips[:, :1].expand_as(clips)
    _, metrics = Objective(network, seam)(still, torch.ones(2))
    alone, _ = Objective(network, plain)(still[:, :5], torch.ones(2))
    assert metrics[1] == pytest.approx(alone.item(), rel=1e-4)


def test_squares_are_weighed_as_asked(network: Network):
    clips = Ramps(small_stage()).batch(0)
    losses = [
        Objective(network, small_stage(l1_weight=a, mse_weight=b))(clips, torch.ones(2))[0].item()
        for a, b in ((1.0, 0.0), (0.0, 1.0), (2.0, 3.0))
    ]
    assert losses[2] == pytest.approx(2 * losses[0] + 3 * losses[1], rel=1e-5)
    assert np.isfinite(losses).all()


def test_an_easy_clip_counts_as_much_as_a_hard_one_in_the_logarithm(network: Network):
    clips = Ramps(small_stage()).batch(0)
    flat = torch.full_like(clips, 127)
    logs, squares = (
        small_stage(l1_weight=0.0, log_mse_weight=1.0),
        small_stage(mse_weight=1.0, l1_weight=0.0),
    )

    def loss(stage: Stage, video: torch.Tensor) -> float:
        return Objective(network, stage)(video, torch.ones(2))[0].item()

    both = torch.cat([clips[:1], flat[:1]])
    alone = (
        loss(logs, torch.cat([clips[:1], clips[:1]])),
        loss(logs, torch.cat([flat[:1], flat[:1]])),
    )
    assert loss(logs, both) == pytest.approx(sum(alone) / 2, rel=1e-4)
    assert alone[1] == pytest.approx(np.log(loss(squares, flat) + 1e-4), rel=1e-3)


def test_the_latent_router_can_learn_together_with_the_rest(network: Network):
    stage = small_stage(latent_router_weight=0.5)
    loss, metrics = Objective(network, stage)(Ramps(stage).batch(0), torch.ones(2))
    loss.backward()
    assert loss.item() > metrics[1]
    touched = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None}
    assert {"information_head", "encoder", "decoder"} <= touched


def test_a_beta_above_one_keeps_all_but_the_easiest_clips_whole(network: Network):
    stage = small_stage(router="elbo", batch_size=2, rates=(4.0,))
    information = torch.ones(2, 2, 2, 2)
    information[1] = 0.1
    assert draw_betas(stage, 0).tolist() == [4.0, 4.0]
    rates = Objective(network, stage)._rates(information, torch.full((2,), 4.0))
    assert rates.tolist() == pytest.approx([1.0, 4 * 0.1 / 0.55])
