"""The training loop on clips that take no time: what it lowers, keeps and repeats."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from infotok_core.config import TokenizerConfig, mini
from infotok_core.network import Network, build_network
from infotok_core.training import (
    TrainingConfig,
    drop_tokens,
    evaluate,
    start_as_identity,
    to_pixels,
    train,
)


def clips(batch: int = 2, frames: int = 5, side: int = 16) -> Tensor:
    """Smooth moving ramps: uint8 [B, T, H, W, 3]."""
    t = torch.arange(frames)[:, None, None]
    y = torch.arange(side)[:, None]
    x = torch.arange(side)
    ramps = [(40 + 20 * b + 3 * t + 5 * y + 2 * b * x) % 256 for b in range(batch)]
    return torch.stack(ramps).unsqueeze(-1).repeat(1, 1, 1, 1, 3).to(torch.uint8)


def run(
    network: Network, *, sample: Callable[[], Tensor] | None = None, **config: object
) -> tuple[Network, tuple[float, ...], list[str]]:
    lines: list[str] = []
    ticks = itertools.count()
    settings = {"frames": 5, "crop": 16, "batch_size": 2, "log_every": 5, "warmup_steps": 2}
    averaged, report = train(
        network,
        sample or clips,
        TrainingConfig(**{**settings, **config}),  # type: ignore[arg-type]
        clock=lambda: float(next(ticks)),
        log=lines.append,
    )
    return averaged, report.losses, lines


def fresh(config: TokenizerConfig) -> Network:
    return build_network(config, seed=3).requires_grad_(requires_grad=True)


@pytest.mark.parametrize("transformers", [False, True])
def test_a_few_steps_lower_the_loss(toy_config: TokenizerConfig, transformers: bool):
    network = fresh(toy_config)
    start_as_identity(network)
    _, losses, _ = run(network, steps=25, learning_rate=5e-3, transformers=transformers)
    assert len(losses) == 5
    assert losses[-1] < 0.8 * losses[0]


def test_the_averaged_network_is_another_one_that_follows(toy_config: TokenizerConfig):
    network = fresh(toy_config)
    before = [parameter.clone() for parameter in network.parameters()]
    averaged, _, _ = run(network, steps=10)
    assert not averaged.training
    assert not any(parameter.requires_grad for parameter in averaged.parameters())
    moved = [not torch.equal(a, b) for a, b in zip(before, averaged.parameters(), strict=True)]
    assert sum(moved) > len(moved) // 2
    for ours, theirs in zip(averaged.parameters(), network.parameters(), strict=True):
        assert ours.data_ptr() != theirs.data_ptr()
        assert torch.isfinite(ours).all()


def test_the_same_seed_gives_the_same_weights(toy_config: TokenizerConfig):
    def weights(seed: int) -> list[Tensor]:
        averaged, _, _ = run(fresh(toy_config), steps=4, seed=seed)
        return list(averaged.parameters())

    first, second, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    # Another seed draws other rates.
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_steps_or_minutes_end_a_stage_whichever_comes_first(toy_config: TokenizerConfig):
    # The clock of `run` moves by one second whenever it is read.
    _, losses, lines = run(fresh(toy_config), steps=1000, minutes=0.1, log_every=1)
    assert 1 <= len(losses) < 20
    assert len(lines) == len(losses)
    _, losses, _ = run(fresh(toy_config), steps=3, minutes=100, log_every=1)
    assert len(losses) == 3


def test_a_base_trained_alone_leaves_the_transformers_as_they_were(toy_config: TokenizerConfig):
    network = fresh(toy_config)
    before = {name: p.clone() for name, p in network.named_parameters()}
    run(network, steps=3, transformers=False)
    moved = {n for n, p in network.named_parameters() if not torch.equal(p, before[n])}
    assert moved
    assert not any("vit" in name or "temporal_embed" in name for name in moved)


def test_silenced_transformers_pass_everything_through():
    # In the networks trained here the width of the transformers is that of the latent.
    network = build_network(mini(), seed=0).eval()
    start_as_identity(network)
    with torch.no_grad():
        latent = network.encode(to_pixels(clips(1)))
        assert torch.equal(network.compress(latent), latent)
        embedded = network.embed(network.quantize(latent).codes_BCTHW)
        assert torch.equal(network.decompress(embedded), embedded)


def test_a_base_without_transformers_has_nothing_to_silence(toy_config: TokenizerConfig):
    network = build_network(dataclasses.replace(toy_config, transformer=None), seed=0)
    before = [parameter.clone() for parameter in network.parameters()]
    start_as_identity(network)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


@given(
    st.integers(1, 4),
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    st.lists(st.floats(0.01, 1.0), min_size=4, max_size=4),
    st.booleans(),
)
@settings(max_examples=60)
def test_exactly_the_budget_is_kept_and_it_is_the_most_informative(
    batch: int, grid: tuple[int, int, int], rates: list[float], flat: bool
):
    generator = torch.Generator().manual_seed(batch)
    information = torch.rand(batch, *grid, generator=generator)
    if flat:
        information = torch.zeros_like(information)
    rate = torch.tensor(rates[:batch])
    keep = drop_tokens(information, rate)
    assert keep.shape == (batch, 1, *grid)
    assert set(keep.unique().tolist()) <= {0.0, 1.0}
    for row in range(batch):
        size = information[row].numel()
        wanted = max(1, round(float(rate[row] * size)))
        mask = keep[row, 0].bool()
        assert mask.sum() == wanted
        if 0 < wanted < size:
            assert information[row][mask].min() >= information[row][~mask].max()


def test_every_token_is_kept_at_rate_one():
    information = torch.rand(2, 3, 4, 4)
    assert drop_tokens(information, torch.ones(2)).all()


def test_pixels_lie_between_minus_one_and_one():
    video = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 1, 1, 1, 3)
    pixels = to_pixels(video)
    assert pixels.shape == (1, 3, 1, 1, 1)
    assert pixels.flatten().tolist() == pytest.approx([-1.0, 1 / 255, 1.0], abs=1e-6)


def test_psnr_is_told_for_each_clip_and_falls_with_the_rate(toy_config: TokenizerConfig):
    network = fresh(toy_config)
    start_as_identity(network)
    averaged, _, _ = run(network, steps=60, learning_rate=5e-3)
    full = evaluate(averaged, list(clips()), 1.0)
    quarter = evaluate(averaged, list(clips()), 0.25)
    assert len(full) == len(quarter) == 2
    assert all(5 < value < 60 for value in full)
    assert sum(quarter) < sum(full)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "needs an end: steps or minutes"),
        ({"steps": 1, "rates": (0.0,)}, r"rates must lie in \(0, 1\]"),
        ({"steps": 1, "rates": (1.5,)}, r"rates must lie in \(0, 1\]"),
        ({"steps": 1, "rates": ()}, r"rates must lie in \(0, 1\]"),
    ],
)
def test_a_stage_that_makes_no_sense_is_refused(fields: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**fields)  # type: ignore[arg-type]
