"""From clips to the loss: one forward pass of the paper's algorithm 1.

Encode, route, compress, quantise, drop, decompress, decode. The router looks at the error of the
full-rate reconstruction, without a gradient, as at inference; only the reconstruction from the
kept tokens is pulled towards the video.

Shapes: B clips, C colours, T frames, H rows, W columns; t, h, w latent grid, N = t*h*w tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from infotok_core.code_space import CodeSpaceNetwork
from infotok_core.information import token_information
from infotok_core.network import Network
from infotok_core.recipe import Stage
from infotok_core.router import num_tokens_batch, select_batch, selection_scores
from infotok_core.world import World

__all__ = ["METRICS", "Objective", "check_stage", "draw_betas", "keep_tokens", "to_pixels"]

METRICS = ("loss", "l1", "rate", "elbo")
"""What a forward pass tells: the loss, the mean absolute error of the masked reconstruction, the
mean share of kept tokens, the mean information (0 where it was not needed)."""

# Of the squared error of pixels in [-1, 1], 46 dB: a clip of one colour must not rule the others.
_MSE_FLOOR = 1e-4


class _Pass(NamedTuple):
    """The way of a batch: the video from the kept tokens, and what decided on them.

    ``video_hat`` [B, C, T, H, W], ``rate_B``, the share of tokens kept, ``information``
    [B, t, h, w], 0 where nothing needed it, the compressed ``latent`` [B, z, t, h, w], and how far
    the decompressed codes are from the base's own, where a stage asks.
    """

    video_hat: Tensor
    rate_B: Tensor
    information: Tensor
    latent: Tensor
    code_error: Tensor | float = 0.0


def to_pixels(video_u8_BTHWC: Tensor) -> Tensor:
    """uint8 clips to the network's ``[B, C, T, H, W]`` in [-1, 1], float32."""
    return video_u8_BTHWC.permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def draw_betas(stage: Stage, step: int) -> NDArray[np.float32]:
    """The asked share of each clip of a step's whole batch: a function of seed and step alone."""
    generator = np.random.Generator(np.random.Philox(key=[stage.seed, step]))
    if stage.router == "static":
        return np.full(stage.batch_size, stage.rates[0], np.float32)
    if stage.router == "uniform":
        drawn = generator.uniform(stage.min_rate, 1, stage.batch_size)
        return drawn.astype(np.float32)
    return generator.choice(np.array(stage.rates, np.float32), stage.batch_size)


def keep_tokens(stage: Stage, information_Bthw: Tensor, rate_B: Tensor) -> Tensor:
    """``[B, 1, t, h, w]`` bool: the `num_tokens` tokens the stage's selection ranks highest."""
    scores_BN = selection_scores(stage.selection, information_Bthw).flatten(1)
    budget_B = num_tokens_batch(rate_B, scores_BN.shape[1])
    return select_batch(scores_BN, budget_B).view(information_Bthw.shape).unsqueeze(1)


def check_stage(stage: Stage, network: Network) -> None:
    """Whether a network can be trained so.

    Raises:
        ValueError: Naming what does not fit.
    """
    config = network.config
    _check_base(stage, network)
    if stage.part != "base" and config.transformer is None:
        raise ValueError(f"part = {stage.part}, but this network has no transformers to train")
    wants_router = stage.part == "latent_router" or stage.latent_router_weight
    if wants_router and not config.latent_router:
        raise ValueError("the stage trains a latent router, but this network has none")
    if (stage.frames - 1) % config.temporal_compression:
        raise ValueError(f"frames must be 1 + {config.temporal_compression}k, not {stage.frames}")
    if stage.crop % config.spatial_compression:
        raise ValueError(
            f"crop must be a multiple of {config.spatial_compression}, not {stage.crop}"
        )
    if stage.part != "base":
        network.shape.grid(stage.frames, stage.crop, stage.crop)


def _check_base(stage: Stage, network: Network) -> None:
    if not isinstance(network, CodeSpaceNetwork):
        if stage.code_weight:
            raise ValueError("code_weight is for a base of programs (--base)")
        return
    if stage.part != "compressor":
        raise ValueError(
            f"part = {stage.part}, but a base of programs stays as it is: part = compressor"
        )
    pixels = (
        stage.l1_weight, stage.mse_weight, stage.log_mse_weight, stage.perceptual_weight,
        stage.seam_weight,
    )  # fmt: skip
    if any(pixels) and not network.has_gradient:
        raise ValueError(
            "the decoder program of this base has no gradient: set l1_weight = 0 (and whatever "
            "else looks at pixels) and code_weight = 1"
        )


class Objective(nn.Module):
    """The loss of a batch. Holds the running E[ELBO] of the ``elbo`` router as buffers."""

    def __init__(
        self,
        network: Network,
        stage: Stage,
        *,
        world: World | None = None,
        perceptual: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_stage(stage, network)
        self.network = network
        self.perceptual = perceptual
        self._stage, self._world = stage, world or World()
        device = next(network.parameters()).device
        # The mean of all so far, and how much of its weight is not the zero it started from.
        self.register_buffer("elbo_sum", torch.zeros((), device=device))
        self.register_buffer("elbo_weight", torch.zeros((), device=device))

    elbo_sum: Tensor
    elbo_weight: Tensor

    def forward(self, video_u8_BTHWC: Tensor, beta_B: Tensor) -> tuple[Tensor, Tensor]:
        """The loss to differentiate, and `METRICS` as one detached vector."""
        stage = self._stage
        video = to_pixels(video_u8_BTHWC)
        if stage.seam_frames:
            video = torch.cat([video[:, :, : stage.frames], video[:, :, -stage.frames :]])
            beta_B = beta_B.repeat(2)
        if stage.part == "latent_router":
            return self._router_loss(video)
        done = self._reconstruct(video, beta_B)
        error = video - done.video_hat
        l1 = error.abs().mean()
        loss = stage.code_weight * done.code_error + self._distortion(error, l1)
        if stage.perceptual_weight:
            assert self.perceptual is not None
            loss = loss + stage.perceptual_weight * self.perceptual(video, done.video_hat)
        if stage.seam_frames:
            earlier, later = done.video_hat.chunk(2)
            overlap = stage.seam_frames
            difference = earlier[:, :, -overlap:] - later[:, :, :overlap]
            loss = loss + stage.seam_weight * difference.abs().mean()
        if stage.latent_router_weight:
            guess = self._guess_error(done.latent, done.information)
            loss = loss + stage.latent_router_weight * guess
        rate, elbo = done.rate_B.mean(), done.information.mean()
        return loss, torch.stack([loss.detach(), l1.detach(), rate, elbo])

    def _distortion(self, error_BCTHW: Tensor, l1: Tensor) -> Tensor:
        stage = self._stage
        loss = torch.zeros_like(l1)
        if stage.l1_weight:
            loss = loss + stage.l1_weight * l1
        if stage.mse_weight:
            loss = loss + stage.mse_weight * error_BCTHW.square().mean()
        if stage.log_mse_weight:
            mse_B = error_BCTHW.square().mean(dim=(1, 2, 3, 4))
            loss = loss + stage.log_mse_weight * (mse_B + _MSE_FLOOR).log().mean()
        return loss

    def _reconstruct(self, video: Tensor, beta_B: Tensor) -> _Pass:
        network, stage = self.network, self._stage
        latent = network.encode(video)
        if stage.part == "base":
            codes = network.quantize(latent).codes_BCTHW
            video_hat = network.decode(network.embed(codes)).float()
            return _Pass(video_hat, torch.ones_like(beta_B), torch.zeros_like(codes[:, 0]), latent)
        # A budget-aware compressor is asked again when the mask is known; the first time only shows
        # what each token is worth.
        twice = network.is_budget_aware
        with torch.set_grad_enabled(torch.is_grad_enabled() and not twice):
            compressed = network.compress(latent)
            codes = network.quantize(compressed).codes_BCTHW
        needed = stage.selection == "information" or stage.router == "elbo"
        if needed or stage.latent_router_weight:
            with torch.no_grad():
                information = self._information(video, codes)
        else:
            information = torch.zeros_like(codes[:, 0])
        keep = keep_tokens(stage, information, self._rates(information, beta_B))
        if twice:
            codes = network.quantize(network.compress(latent, keep)).codes_BCTHW
        decompressed = network.decompress(network.embed(codes * keep), keep)
        video_hat = network.decode(decompressed).float()
        kept_B = keep.float().mean(dim=(1, 2, 3, 4))
        done = _Pass(video_hat, kept_B, information, compressed)
        if stage.code_weight:
            done = done._replace(code_error=(decompressed - latent).abs().mean())
        return done

    def _router_loss(self, video: Tensor) -> tuple[Tensor, Tensor]:
        network = self.network
        with torch.no_grad():
            latent = network.compress(network.encode(video))
            information = self._information(video, network.quantize(latent).codes_BCTHW)
        loss = self._guess_error(latent, information)
        l1 = (network.predict_information(latent).float() - information).abs().mean().detach()
        one = torch.ones((), device=video.device)
        return loss, torch.stack([loss.detach(), l1, one, information.mean()])

    def _guess_error(self, latent: Tensor, information: Tensor) -> Tensor:
        """Distance of the predicted from the measured information, both as logarithms."""
        predicted = self.network.predict_information(latent).float()
        return (predicted.log() - information.clamp(min=1e-4).log()).abs().mean()

    def _information(self, video: Tensor, codes: Tensor) -> Tensor:
        config = self.network.config
        return token_information(
            video,
            self.network.decode_codes(codes).float(),
            temporal=config.temporal_compression,
            spatial=config.spatial_compression,
        )

    def _rates(self, information_Bthw: Tensor, beta_B: Tensor) -> Tensor:
        stage = self._stage
        if stage.router != "elbo":
            return beta_B
        elbo_B = information_Bthw.mean(dim=(1, 2, 3))
        mean = elbo_B.mean()
        self._world.average([mean])
        self.elbo_sum.lerp_(mean, 1 - stage.elbo_decay)
        self.elbo_weight.lerp_(torch.ones_like(mean), 1 - stage.elbo_decay)
        expected = self.elbo_sum / self.elbo_weight
        return (beta_B * elbo_B / expected).clamp(stage.min_rate, 1)
