"""The training loop: one stage on one or several devices, resumable to the bit on a CPU.

Everything random is a function of seed and step, so the position in a run is a number. A step on a
GPU is recorded once as a CUDA graph and replayed: the network is small, and launching its kernels
one by one would take longer than running them.

Shapes: B clips, T frames, H rows, W columns, C = 3 colours.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from infotok_core.network import Network
from infotok_core.objective import METRICS, Objective, draw_betas
from infotok_core.recipe import Stage
from infotok_core.world import World

__all__ = ["Clips", "Progress", "Trainer", "TrainingError"]

_GRAPH_WARMUP = 3


class TrainingError(RuntimeError):
    """Training cannot go on: the message says at which step, and why."""


class Clips(Protocol):
    """Where the clips come from."""

    def batch(self, step: int) -> Tensor:
        """This process's clips of a step: uint8 ``[B, T, H, W, 3]`` on its device."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What `Trainer.run` tells every ``log_every`` steps.

    Attributes:
        step: Steps done.
        metrics: Means since the last time, by the names of `METRICS`.
        learning_rate: Of the last step.
    """

    step: int
    metrics: dict[str, float]
    learning_rate: float


@dataclass(kw_only=True)
class Trainer:
    """One stage: a network that is trained in place, and its averaged copy, which is what to keep.

    Attributes:
        network: On its device; the parameters the stage does not train are frozen.
        averaged: Same device, same shape.
        stage: What to do.
        world: Who else does it.
        perceptual: Needed where the stage asks for it.
        step: Steps done so far.
    """

    network: Network
    averaged: Network
    stage: Stage
    world: World = field(default_factory=World)
    perceptual: nn.Module | None = None
    step: int = 0

    def __post_init__(self) -> None:
        if self.stage.perceptual_weight and self.perceptual is None:
            raise ValueError("perceptual_weight > 0 needs a perceptual network")
        self.world.share(self.stage.batch_size)
        self.device = next(self.network.parameters()).device
        _channels_last(self.network)
        _channels_last(self.averaged)
        trained = _trained_parameters(self.network, self.stage)
        self.network.requires_grad_(requires_grad=False).train()
        for parameter in trained:
            parameter.requires_grad_()
        self._trained = trained
        self._averaged = _trained_parameters(self.averaged, self.stage)
        self.averaged.requires_grad_(requires_grad=False).eval()
        self.objective = Objective(
            self.network, self.stage, world=self.world, perceptual=self.perceptual
        )
        self._optimizer = torch.optim.AdamW(
            trained,
            lr=self.stage.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=self.stage.weight_decay,
            fused=self.device.type == "cuda",
        )
        self._logged = self.step
        # Metrics added up since then, and those of all processes when a state was wanted.
        self._sums = torch.zeros(len(METRICS), device=self.device)
        self._all_sums = self.world.gather(self._sums)

    @classmethod
    def start(cls, network: Network, stage: Stage, **options: Any) -> Trainer:  # noqa: ANN401
        """A stage from its first step; the averaged weights start as the present ones."""
        averaged = copy.deepcopy(network)
        return cls(network=network, averaged=averaged, stage=stage, **options)

    def state(self) -> dict[str, Any]:
        """All that `resume` needs: tensors and numbers."""
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "elbo_sum": self.objective.elbo_sum,
            "elbo_weight": self.objective.elbo_weight,
            "logged": self._logged,
            "sums": self._all_sums,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken, on any device.

        Raises:
            RuntimeError: If it is another network's.
        """
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.objective.elbo_sum.copy_(state["elbo_sum"])
        self.objective.elbo_weight.copy_(state["elbo_weight"])
        self._logged = state["logged"]
        sums = state["sums"].to(self.device)
        # Among fewer or more processes than there were the mean is the same.
        same = len(sums) == self.world.size
        self._sums.copy_(sums[self.world.rank] if same else sums.mean(dim=0))

    def run(
        self,
        clips: Clips,
        *,
        report: Callable[[Progress], None],
        should_stop: Callable[[], bool] = lambda: False,
        should_save: Callable[[], bool] = lambda: False,
        save: Callable[[], None] = lambda: None,
    ) -> bool:
        """Train to the end of the stage; True, or False if asked to stop before.

        Args:
            clips: Of the stage's shape.
            report: Called every ``log_every`` steps and after the last.
            should_stop: Asked after every step, by several processes on GPUs every ``log_every``
                steps; one process of the world suffices.
            should_save: Asked then, too.
            save: Called after either, in every process: takes the `state`.

        Raises:
            TrainingError: If the loss is no longer a number.
        """
        recorded = self.device.type == "cuda" and self.network.is_recordable
        forward_backward = self._recorded() if recorded else self._step
        # To ask each other, GPUs would have to wait for each other.
        always = self.world.size == 1 or self.device.type == "cpu"
        while self.step < self.stage.steps:
            rate = _learning_rate(self.stage, self.step)
            video, beta_B = clips.batch(self.step), self._betas()
            self._sums += forward_backward(video, beta_B)
            self._update(rate)
            self.step += 1
            done = self.step == self.stage.steps
            tells = done or self.step % self.stage.log_every == 0
            if tells:
                report(self._progress(rate))
            if done or not (tells or always):
                continue
            stops, saves = self.world.any((should_stop(), should_save()), self.device)
            if stops or saves:
                self._all_sums = self.world.gather(self._sums)
                self._require_number(self._all_sums[:, 0].sum().item())
                save()
            if stops:
                return False
        return True

    def _progress(self, learning_rate: float) -> Progress:
        """The means since the last time, over all processes, and a new beginning."""
        # The only wait for the device in the loop.
        means = self._sums / (self.step - self._logged)
        self.world.average([means])
        metrics: dict[str, float] = dict(zip(METRICS, means.tolist(), strict=True))
        self._require_number(metrics["loss"])
        self._logged = self.step
        self._sums.zero_()
        self._all_sums.zero_()
        return Progress(step=self.step, metrics=metrics, learning_rate=learning_rate)

    def _require_number(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise TrainingError(f"the loss became {loss} by step {self.step}")

    def _betas(self) -> Tensor:
        share = self.world.share(self.stage.batch_size)
        betas = draw_betas(self.stage, self.step)[self.world.rank * share :][:share]
        return torch.from_numpy(betas.copy()).to(self.device, non_blocking=True)

    def _step(self, video_u8_BTHWC: Tensor, beta_B: Tensor) -> Tensor:
        """Forward, backward, gradients averaged over the world; the metrics."""
        for parameter in self._trained:
            parameter.grad = None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            loss, metrics = self.objective(video_u8_BTHWC, beta_B)
        loss.backward()
        self.world.average([p.grad for p in self._trained if p.grad is not None])
        return metrics

    def _recorded(self) -> Callable[[Tensor, Tensor], Tensor]:
        """`_step` as a CUDA graph over fixed memory: gradients appear where they did before."""
        stage, share = self.stage, self.world.share(self.stage.batch_size)
        shape = (share, stage.clip_frames, stage.crop, stage.crop, 3)
        video = torch.randint(0, 256, shape, dtype=torch.uint8, device=self.device)
        beta = torch.ones(share, device=self.device)
        before = [self.objective.elbo_sum.clone(), self.objective.elbo_weight.clone()]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            # Lets libraries choose their kernels and allocate their workspaces.
            for _ in range(_GRAPH_WARMUP):
                self._step(video, beta)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            metrics = self._step(video, beta)
        self.objective.elbo_sum.copy_(before[0])
        self.objective.elbo_weight.copy_(before[1])

        def replay(video_u8_BTHWC: Tensor, beta_B: Tensor) -> Tensor:
            video.copy_(video_u8_BTHWC)
            beta.copy_(beta_B)
            graph.replay()
            return metrics

        return replay

    @torch.no_grad()
    def _update(self, learning_rate: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        nn.utils.clip_grad_norm_(self._trained, self.stage.clip_norm)
        self._optimizer.step()
        # Young averages follow quickly, or the first steps would linger in them.
        decay = min(self.stage.ema_decay, (1 + self.step) / (10 + self.step))
        get_ema_multi_avg_fn(decay)([*self._averaged], [*self._trained], 0)


def _trained_parameters(network: Network, stage: Stage) -> list[nn.Parameter]:
    """The parameters a stage trains, always in the same order."""

    def wanted(name: str) -> bool:
        transformer = name.startswith(
            ("vit_", "temporal_embed", "post_vit_conv", "dropped_embed", "budget_embed")
        )
        router = name.startswith("information_head")
        match stage.part:
            case "base":
                return not transformer and not router
            case "compressor":
                return transformer
            case "latent_router":
                return router
            case "all":
                return not router or stage.latent_router_weight > 0

    chosen = [p for name, p in network.named_parameters() if wanted(name)]
    if not chosen:
        raise ValueError(f"part = {stage.part}, but this network has no such parameters")
    return chosen


def _learning_rate(stage: Stage, step: int) -> float:
    warmup = min(1.0, (step + 1) / max(1, stage.warmup_steps))
    cosine = (1 + math.cos(math.pi * step / stage.steps)) / 2
    floor = stage.final_learning_rate
    return stage.learning_rate * warmup * (floor + (1 - floor) * cosine)


@torch.no_grad()
def _channels_last(network: nn.Module) -> None:
    """The memory order of the activations; see layers.py."""
    for parameter in network.parameters():
        if parameter.dim() == 5:
            layout = torch.channels_last_3d
            parameter.data = parameter.data.contiguous(memory_format=layout)
