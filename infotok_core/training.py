"""The training loop: one device, L1, information-ranked dropping, averaged weights.

A simple form of the paper's Algorithm 1: encode, compress, quantise, drop the least informative
tokens, decompress, decode, and pull the reconstruction towards the video. The share to keep, beta,
is drawn for each clip from a small set ("Flex"); what is kept is decided by the network's own error
at full rate, as at inference. A run is one or more stages of fixed shape. There is
no torch.compile: on one H200 it had not finished compiling this network after five minutes, a third
of the time that the whole training takes.

Shapes: B clips, C colours, T frames, H rows, W columns; t, h, w latent grid, N = t*h*w tokens.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from infotok_core.information import token_information
from infotok_core.network import Network

__all__ = [
    "TrainingConfig",
    "TrainingReport",
    "drop_tokens",
    "evaluate",
    "start_as_identity",
    "to_pixels",
    "train",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """One stage of training.

    Raises:
        ValueError: If neither steps nor minutes end it, or a rate is outside (0, 1].
    """

    frames: int = 17
    crop: int = 128
    batch_size: int = 32
    steps: int | None = None
    """Stop after this many steps, or"""
    minutes: float | None = None
    """after this long; the learning rate falls along whichever is nearer to its end."""
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    final_learning_rate: float = 0.02
    """Where the cosine ends, as a share of ``learning_rate``."""
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    rates: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25)
    """Shares to keep, drawn uniformly for each clip."""
    transformers: bool = True
    """False trains the base tokenizer alone: nothing compressed, nothing dropped."""
    autocast: bool = False
    """bfloat16 where that is safe (GPU)."""
    log_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise ValueError("a training stage needs an end: steps or minutes")
        if not self.rates or not all(0 < rate <= 1 for rate in self.rates):
            raise ValueError(f"rates must lie in (0, 1], not {self.rates}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport:
    """How a stage went."""

    steps: int
    seconds: float
    losses: tuple[float, ...]
    """Mean L1 of each ``log_every`` steps."""


def to_pixels(video_u8_BTHWC: Tensor) -> Tensor:
    """uint8 clips to the network's ``[B, C, T, H, W]`` in [-1, 1], float32."""
    return video_u8_BTHWC.permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def drop_tokens(information_Bthw: Tensor, rate_B: Tensor) -> Tensor:
    """Keep the round(rate * N) tokens of highest information in each clip, at least one.

    Unlike `router.select` it breaks ties as the sort happens to, which training does not mind.

    Returns:
        float32 ``[B, 1, t, h, w]``, 1 = kept.
    """
    flat_BN = information_Bthw.flatten(1)
    budget_B = (rate_B * flat_BN.shape[1]).round().clamp(min=1)
    rank_BN = flat_BN.argsort(dim=1, descending=True).argsort(dim=1)
    return (rank_BN < budget_B[:, None]).float().view_as(information_Bthw).unsqueeze(1)


@torch.no_grad()
def start_as_identity(network: Network) -> None:
    """Silence both transformers: each layer adds nothing until it has learned to.

    A base trained alone then goes on exactly where it was when they join in.
    """
    if network.config.transformer is None:
        return
    for stack in (network.vit_encoder, network.vit_decoder):
        for name, parameter in stack.named_parameters():
            if name.endswith(("out_proj.weight", "w2.weight")):
                parameter.zero_()
    network.temporal_embed.zero_()


class _Objective(nn.Module):
    """One forward pass to the loss."""

    def __init__(self, network: Network, *, transformers: bool) -> None:
        super().__init__()
        self.network = network
        self.transformers = transformers

    def forward(self, video_BCTHW: Tensor, rate_B: Tensor) -> Tensor:
        network = self.network
        latent = network.encode(video_BCTHW)
        if self.transformers:
            latent = network.compress(latent)
        codes = network.quantize(latent).codes_BCTHW
        if self.transformers:
            with torch.no_grad():
                full = self._decode(codes).float()
                information = token_information(
                    video_BCTHW,
                    full,
                    temporal=network.config.temporal_compression,
                    spatial=network.config.spatial_compression,
                )
            codes = codes * drop_tokens(information, rate_B)
        return (video_BCTHW - self._decode(codes).float()).abs().mean()

    def _decode(self, codes: Tensor) -> Tensor:
        latent = self.network.embed(codes)
        return self.network.decode(self.network.decompress(latent) if self.transformers else latent)


def train(
    network: Network,
    sample: Callable[[], Tensor],
    config: TrainingConfig,
    *,
    clock: Callable[[], float],
    log: Callable[[str], None],
) -> tuple[Network, TrainingReport]:
    """Run one stage; ``network`` is trained in place, its averaged copy is what to keep.

    Args:
        network: On the device to train on.
        sample: Gives a batch of clips, uint8 ``[B, T, H, W, 3]`` on that device.
        clock: Monotonic seconds.
        log: Takes a line every ``log_every`` steps.

    Returns:
        The network with exponentially averaged weights, in eval mode, and the report.
    """
    device = next(network.parameters()).device
    torch.manual_seed(config.seed)
    averaged = copy.deepcopy(network).eval().requires_grad_(False)
    objective: nn.Module = _Objective(network.train(), transformers=config.transformers)
    optimizer = torch.optim.AdamW(
        network.parameters(),
        lr=config.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=config.weight_decay,
        fused=device.type == "cuda",
    )
    rates = torch.tensor(config.rates, device=device)
    started, step, losses = clock(), 0, list[float]()
    running = torch.zeros((), device=device)
    while (progress := _progress(config, step, clock() - started)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(config, step, progress)
        video = to_pixels(sample())
        rate_B = rates[torch.randint(len(rates), (len(video),), device=device)]
        with torch.autocast(device.type, torch.bfloat16, enabled=config.autocast):
            loss = objective(video, rate_B)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
        optimizer.step()
        # Young averages follow quickly, or the first steps would linger in them.
        _average(averaged, network, decay=min(config.ema_decay, (1 + step) / (10 + step)))
        running += loss.detach()
        step += 1
        if step % config.log_every == 0:
            # The only wait for the device in the loop.
            losses.append(running.item() / config.log_every)
            running.zero_()
            speed = step / (clock() - started)
            log(f"step {step} ({progress:.0%}), L1 {losses[-1]:.4f}, {speed:.1f} steps/s")
    return averaged, TrainingReport(steps=step, seconds=clock() - started, losses=tuple(losses))


def _progress(config: TrainingConfig, step: int, seconds: float) -> float:
    by_steps = step / config.steps if config.steps else 0.0
    by_time = seconds / (60 * config.minutes) if config.minutes else 0.0
    return max(by_steps, by_time)


def _learning_rate(config: TrainingConfig, step: int, progress: float) -> float:
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    cosine = (1 + math.cos(math.pi * progress)) / 2
    floor = config.final_learning_rate
    return config.learning_rate * warmup * (floor + (1 - floor) * cosine)


@torch.no_grad()
def _average(averaged: nn.Module, network: nn.Module, *, decay: float) -> None:
    for mine, theirs in zip(averaged.parameters(), network.parameters(), strict=True):
        mine.lerp_(theirs, 1 - decay)


@torch.inference_mode()
def evaluate(network: Network, clips: Sequence[Tensor], rate: float) -> list[float]:
    """PSNR in dB of each clip, every clip at the same rate.

    Args:
        network: In eval mode.
        clips: uint8 ``[T, H, W, 3]`` each, T = 1 + 4k, on any device.
        rate: Share of tokens to keep, in (0, 1]; 1 keeps all.
    """
    device = next(network.parameters()).device
    results: list[float] = []
    for clip in clips:
        video = to_pixels(clip[None].to(device))
        codes = network.quantize(network.compress(network.encode(video))).codes_BCTHW
        full = network.decode(network.decompress(network.embed(codes)))
        if rate < 1:
            information = token_information(
                video,
                full,
                temporal=network.config.temporal_compression,
                spatial=network.config.spatial_compression,
            )
            keep = drop_tokens(information, torch.tensor([rate], device=device))
            full = network.decode(network.decompress(network.embed(codes * keep)))
        error = (full.clamp(-1, 1) - video).square().mean().item() / 4
        results.append(-10 * math.log10(max(error, 1e-10)))
    return results
