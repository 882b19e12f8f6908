"""The whole network under the published parameter names: pure tensors in, tensors out.

Shapes: B videos, C channels, T frames, H rows, W columns; lower-case t, h, w the latent grid.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from infotok_core.compressor import TransformerLayer, rotary_tables, run_stack
from infotok_core.config import TokenizerConfig
from infotok_core.decoder import Decoder
from infotok_core.encoder import Encoder
from infotok_core.fsq import FSQ, Quantized
from infotok_core.layers import SpatialConv
from infotok_core.shape import TokenShape, shape_of

__all__ = ["Network", "build_network"]


class Network(nn.Module):
    """Encoder, compressor, quantiser, decompressor, decoder.

    Every step is causal in time: a prefix of the video gives a prefix of the latent, of the tokens
    and of the reconstruction. No step depends on another video of the batch, up to the rounding of
    the kernels a batch size selects.
    """

    is_recordable = True
    """Whether a training step waits for nothing on the device, so that it can be a CUDA graph."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = SpatialConv(config.z_channels, config.embedding_dim)
        self.post_quant_conv = SpatialConv(config.embedding_dim, config.z_channels)
        self.quantizer = FSQ(config.levels)
        if config.transformer is not None:
            self._add_transformers(config)
        if config.latent_router:
            self.information_head = _information_head(config)

    def _add_transformers(self, config: TokenizerConfig) -> None:
        inner = config.transformer
        assert inner is not None
        self.temporal_embed = nn.Parameter(
            torch.empty(inner.max_frames, inner.hidden).normal_(std=inner.init_std)
        )
        same = inner.hidden == config.z_channels
        # One pair of maps serves both directions.
        self.vit_conv: nn.Module = (
            nn.Identity() if same else nn.Linear(config.z_channels, inner.hidden, bias=False)
        )
        self.post_vit_conv: nn.Module = (
            nn.Identity() if same else nn.Linear(inner.hidden, config.z_channels, bias=False)
        )
        self.vit_encoder = nn.ModuleList(
            TransformerLayer(inner) for _ in range(inner.encoder_layers)
        )
        self.vit_decoder = nn.ModuleList(
            TransformerLayer(inner) for _ in range(inner.decoder_layers)
        )
        if inner.mask_embedding:
            self.dropped_embed = nn.Parameter(torch.zeros(inner.hidden))
        if inner.budget_aware:
            # Added where a token will be dropped; added everywhere, times the share that will be.
            self.budget_embed = nn.Parameter(torch.zeros(2, inner.hidden))
        rows, columns = rotary_tables(inner)
        self.register_buffer("row_turns", rows, persistent=False)
        self.register_buffer("column_turns", columns, persistent=False)

    row_turns: Tensor
    column_turns: Tensor

    def encode(self, video_BCTHW: Tensor) -> Tensor:
        """The CNN's latent ``[B, z, t, h, w]`` of a video in [-1, 1]; T = 1 + 4k for temporal 4."""
        return self.encoder(video_BCTHW)

    @property
    def shape(self) -> TokenShape:
        """The windows that are taken."""
        return shape_of(self.config)

    @property
    def is_budget_aware(self) -> bool:
        """Whether the codes of a clip depend on which of them will be dropped."""
        return self.config.transformer is not None and self.config.transformer.budget_aware

    def compress(self, latent_Bzthw: Tensor, keep_B1thw: Tensor | None = None) -> Tensor:
        """The latent after the compressor's transformer; same shape. Identity without one.

        Args:
            latent_Bzthw: See `encode`.
            keep_B1thw: 0 where the token will be dropped; None: none will. Only a budget-aware
                network looks at it, the published one does not.
        """
        if self.config.transformer is None:
            return latent_Bzthw
        offset_BCthw = None
        if keep_B1thw is not None and self.is_budget_aware:
            dropped_B1thw = 1 - keep_B1thw.to(latent_Bzthw.dtype)
            share_B1111 = dropped_B1thw.mean(dim=(1, 2, 3, 4), keepdim=True)
            here, everywhere = self.budget_embed.to(latent_Bzthw.dtype).view(2, -1, 1, 1, 1)
            offset_BCthw = dropped_B1thw * here + share_B1111 * everywhere
        return self._transform(self.vit_encoder, latent_Bzthw, offset_BCthw)

    def quantize(self, latent_Bzthw: Tensor) -> Quantized:
        """Codes and indices of a compressed latent."""
        return self.quantizer(self.quant_conv(latent_Bzthw))

    def dequantize(self, indices_Bthw: Tensor) -> Tensor:
        """Codes of indices, in the network's precision."""
        return self.quantizer.decode(indices_Bthw).to(self.post_quant_conv.conv3d.weight.dtype)

    def embed(self, codes_BCthw: Tensor) -> Tensor:
        """Codes (0 where dropped) to the decompressor's input ``[B, z, t, h, w]``."""
        return self.post_quant_conv(codes_BCthw.to(self.post_quant_conv.conv3d.weight.dtype))

    def decompress(self, latent_Bzthw: Tensor, keep_B1thw: Tensor | None = None) -> Tensor:
        """The latent after the decompressor's transformer; same shape. Identity without one.

        Args:
            latent_Bzthw: See `embed`.
            keep_B1thw: 0 where dropped; None: nothing was. Only a network with a mask embedding
                looks at it, the published one does not.
        """
        inner = self.config.transformer
        if inner is None:
            return latent_Bzthw
        offset_BCthw = None
        if keep_B1thw is not None and inner.mask_embedding:
            dropped_B1thw = 1 - keep_B1thw.to(latent_Bzthw.dtype)
            embed = self.dropped_embed.to(latent_Bzthw.dtype)
            offset_BCthw = dropped_B1thw * embed.view(-1, 1, 1, 1)
        return self._transform(self.vit_decoder, latent_Bzthw, offset_BCthw)

    def decode(self, latent_Bzthw: Tensor) -> Tensor:
        """The video ``[B, 3, T, H, W]``, unclamped."""
        return self.decoder(latent_Bzthw)

    def decode_codes(self, codes_BCthw: Tensor, keep_B1thw: Tensor | None = None) -> Tensor:
        """Codes (0 where dropped) to video: `embed`, `decompress`, `decode`."""
        return self.decode(self.decompress(self.embed(codes_BCthw), keep_B1thw))

    def predict_information(self, latent_Bzthw: Tensor) -> Tensor:
        """The information of each token ``[B, t, h, w]``, > 0, guessed from a compressed latent.

        Stands in for `token_information` without the decoder's pass.

        Raises:
            ValueError: If the network has no latent router.
        """
        if not self.config.latent_router:
            raise ValueError("this network has no latent router: its configuration says 0")
        logarithm_B1thw: Tensor = self.information_head(latent_Bzthw).float()
        # Errors lie in [0, 2]; the bounds keep a wild guess finite in float16.
        return logarithm_B1thw.squeeze(1).clamp(-10, 1).exp()

    def tokenize(self, video_BCTHW: Tensor) -> Quantized:
        """Video to codes and indices of all tokens: `encode`, `compress`, `quantize`."""
        return self.quantize(self.compress(self.encode(video_BCTHW)))

    def forward(self, video_BCTHW: Tensor, keep_Bthw: Tensor | None = None) -> Tensor:
        """Reconstruct without the positions where ``keep`` is 0; their codes get no gradient."""
        if keep_Bthw is None:
            return self.decode_codes(self.tokenize(video_BCTHW).codes_BCTHW)
        latent = self.encode(video_BCTHW)
        keep_B1thw = keep_Bthw.unsqueeze(1).to(latent.dtype)
        codes = self.quantize(self.compress(latent, keep_B1thw)).codes_BCTHW
        return self.decode_codes(codes * keep_B1thw, keep_B1thw)

    def _transform(
        self, layers: nn.ModuleList, latent_Bzthw: Tensor, offset_BCthw: Tensor | None
    ) -> Tensor:
        x = _per_position(self.vit_conv, latent_Bzthw)
        if offset_BCthw is not None:
            x = x + offset_BCthw
        x = run_stack(
            layers,
            x,
            temporal_embed_TC=self.temporal_embed,
            row_turns=self.row_turns,
            column_turns=self.column_turns,
        )
        return _per_position(self.post_vit_conv, x)


def _information_head(config: TokenizerConfig) -> nn.Sequential:
    width = config.latent_router
    head = nn.Sequential(
        SpatialConv(config.z_channels, width),
        nn.SiLU(),
        SpatialConv(width, width, kernel=3, padding=1),
        nn.SiLU(),
        SpatialConv(width, 1),
    )
    last = cast(SpatialConv, head[-1]).conv3d
    nn.init.zeros_(last.weight)
    assert last.bias is not None
    # About what a trained network's error is.
    nn.init.constant_(last.bias, -3.0)
    return head


def _per_position(layer: nn.Module, x_BCTHW: Tensor) -> Tensor:
    if isinstance(layer, nn.Identity):
        return x_BCTHW
    return layer(x_BCTHW.movedim(1, -1)).movedim(-1, 1)


def build_network(config: TokenizerConfig, *, seed: int) -> Network:
    """A network with random weights from the seed alone; torch's own generator is not moved."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(config)
