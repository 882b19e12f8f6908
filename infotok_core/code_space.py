"""A compressor and a decompressor of ours around a foreign base that stays as it is.

The base is a pair of programs (`programs`) with a known FSQ alphabet. Its codes take the place of
the latent, and both transformers work on them:

    indices = encoder(video)                  the base's program, never differentiated
    c       = codes of the indices            [B, C, t, h, w]
    c'      = snap(compress(c))               the tokens to store; the base's own at the start
    p       = decompress(keep * c')           predicts c
    video'  = decoder(indices of snap(p))     the base's program

``snap`` rounds to the nearest legal code, with a gradient straight through. Pixels have a gradient
where the decoder program has the parts of the official one (`ProgramTokenizer.has_gradient`); for
any other the distance of p to c is what can be trained.

Shapes: B videos, C code channels, T frames, H rows, W columns; lower-case t, h, w the latent grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from infotok_core.checkpoint import Checkpoint
from infotok_core.config import TokenizerConfig, TransformerConfig
from infotok_core.fsq import FSQ, Quantized
from infotok_core.growing import map_as_identity, start_as_identity
from infotok_core.network import Network
from infotok_core.program_settings import ProgramSettings
from infotok_core.programs import ProgramTokenizer
from infotok_core.shape import TokenShape, shape_of
from infotok_core.tokenizer import Tokenizer

__all__ = ["CodeSpaceNetwork", "CodeSpaceTokenizer", "code_space_config", "code_space_shape"]

_ROUNDING = 1e-2
"""Between the decoder program and its parts, on pixels in [-1, 1]; bfloat16 differs by as much."""


def code_space_config(settings: ProgramSettings, transformer: TransformerConfig) -> TokenizerConfig:
    """Levels and compression of the base with our transformers; no CNN of it is ever built.

    Raises:
        ValueError: If the base is no FSQ, its compression no power of two, or the transformers are
            narrower than its codes.
    """
    if settings.levels is None:
        raise ValueError("a compressor needs the levels of an FSQ, and tokenizer.json names none")
    if transformer.hidden < len(settings.levels):
        raise ValueError(
            f"transformers of width {transformer.hidden} cannot start as the identity of codes of "
            f"{len(settings.levels)} channels"
        )
    temporal, spatial = settings.temporal_compression, settings.spatial_compression
    patch = min(temporal, spatial)
    steps = int(math.log2(max(temporal, spatial) / patch))
    return TokenizerConfig(
        channels=1,
        channels_mult=(1,) * (steps + 1),
        num_res_blocks=1,
        patch_size=patch,
        z_channels=len(settings.levels),
        levels=settings.levels,
        spatial_compression=spatial,
        temporal_compression=temporal,
        transformer=transformer,
    )


def code_space_shape(settings: ProgramSettings, transformer: TransformerConfig) -> TokenShape:
    """What both the base and our transformers take."""
    base, ours = settings.shape, shape_of(code_space_config(settings, transformer))
    assert ours.max_grid is not None
    most = [min(pair) for pair in zip(base.max_grid or ours.max_grid, ours.max_grid, strict=True)]
    return TokenShape(
        temporal_compression=base.temporal_compression,
        spatial_compression=base.spatial_compression,
        codebook_size=base.codebook_size,
        max_grid=(most[0], most[1], most[2]),
        window=base.window,
    )


class CodeSpaceNetwork(Network):
    """Two transformers around programs; everything else a `Network` has goes through these.

    Starts as the base itself: the same tokens, and a dropped position is the zero code. Its
    parameters and its state are the transformers' alone.

    Attributes:
        has_gradient: Whether pixels have one: the parts of the decoder take codes, and give what
            the program gives for their indices.

    Raises:
        ValueError: See `code_space_config`.
    """

    is_recordable = False

    def __init__(self, base: ProgramTokenizer, transformer: TransformerConfig) -> None:
        nn.Module.__init__(self)
        self.config = code_space_config(base.settings, transformer)
        self.quantizer = FSQ(self.config.levels)
        self._add_transformers(self.config)
        start_as_identity(self)
        map_as_identity(self)
        self._base = base
        self.has_gradient = base.has_gradient and self._parts_agree()

    @property
    def base(self) -> ProgramTokenizer:
        """The programs, on the device of the transformers; shared by copies."""
        return self._base

    @property
    def shape(self) -> TokenShape:
        """What both the base and the transformers take."""
        assert self.config.transformer is not None
        return code_space_shape(self._base.settings, self.config.transformer)

    def encode(self, video_BCTHW: Tensor) -> Tensor:
        """The base's codes of a video, without a gradient."""
        with torch.no_grad(), torch.autocast(video_BCTHW.device.type, enabled=False):
            indices_Bthw = self._base.encode(video_BCTHW.float())
            return self.dequantize(indices_Bthw)

    def quantize(self, latent_Bzthw: Tensor) -> Quantized:
        """The nearest legal codes and their indices; the gradient skips the rounding."""
        with torch.autocast(latent_Bzthw.device.type, enabled=False):
            centre, radix = self.quantizer.radix // 2, self.quantizer.radix
            steps = torch.maximum(latent_Bzthw.float() * centre, -centre.float())
            steps = torch.minimum(steps, (radix - 1 - centre).float())
            whole = torch.round(steps)
            indices_Bthw = ((whole.long() + centre) * self.quantizer.weights).sum(dim=1).int()
            return Quantized((steps + (whole - steps).detach()) / centre, indices_Bthw)

    def dequantize(self, indices_Bthw: Tensor) -> Tensor:
        """Codes of indices, in the transformers' precision."""
        return self.quantizer.decode(indices_Bthw).to(self.temporal_embed.dtype)

    def embed(self, codes_BCthw: Tensor) -> Tensor:
        """The codes themselves."""
        return codes_BCthw.to(self.temporal_embed.dtype)

    def decode(self, latent_Bzthw: Tensor) -> Tensor:
        """The base's video of the nearest legal codes, float32."""
        codes_BCthw, indices_Bthw = self.quantize(latent_Bzthw)
        with torch.autocast(latent_Bzthw.device.type, enabled=False):
            if codes_BCthw.requires_grad and self.has_gradient:
                return self._base.decode_codes(codes_BCthw)
            with torch.no_grad():
                everything = torch.ones_like(indices_Bthw, dtype=torch.bool)
                return self._base.decode(indices_Bthw, everything)

    def recode(self, indices_Bthw: Tensor) -> tuple[Tensor, Tensor]:
        """Codes and indices of the tokens to store, from the base's indices."""
        codes_BCthw, tokens_Bthw = self.quantize(self.compress(self.dequantize(indices_Bthw)))
        return codes_BCthw, tokens_Bthw

    def restore(self, tokens_Bthw: Tensor, keep_Bthw: Tensor) -> Tensor:
        """The base's indices, predicted from the kept ones of the stored tokens."""
        codes_BCthw = self.dequantize(tokens_Bthw)
        keep_B1thw = keep_Bthw.unsqueeze(1).to(codes_BCthw.dtype)
        latent_Bzthw = self.decompress(self.embed(codes_BCthw * keep_B1thw), keep_B1thw)
        return self.quantize(latent_Bzthw).indices_BTHW.to(self._base.index_dtype)

    @torch.no_grad()
    def _parts_agree(self) -> bool:
        t, h, w = 2, 4, 6
        if self._base.settings.window:
            t, h, w = self._base.settings.shape.grid(*self._base.settings.window)
        places = torch.arange(t * h * w, device=self._base.device).view(1, t, h, w)
        indices_Bthw = places * 7919 % self.config.codebook_size
        whole = self._base.decode(indices_Bthw, torch.ones_like(places, dtype=torch.bool))
        try:
            codes_BCthw = self.quantizer.to(self._base.device).decode(indices_Bthw)
            parts = self._base.decode_codes(codes_BCthw)
        except (RuntimeError, TypeError, AttributeError):
            # Parts of these names that are something else.
            return False
        return parts.shape == whole.shape and (parts - whole).abs().max().item() <= _ROUNDING

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Programs are no submodule, or they would be trained, averaged and stored with the rest.
        super()._apply(fn, recurse)
        self._base = self._base.on(self.temporal_embed.device)
        return self


class CodeSpaceTokenizer(Tokenizer):
    """A base with a compressor of ours as a `--checkpoint`."""

    def __init__(
        self, checkpoint: Checkpoint, *, device: str | torch.device, dtype: torch.dtype
    ) -> None:
        super().__init__(checkpoint, device=device, dtype=dtype)
        assert isinstance(self.network, CodeSpaceNetwork)
        settings, inner = self.network.base.settings, self.network.config.transformer
        assert inner is not None
        self._shape = code_space_shape(settings, inner)

    @property
    def shape(self) -> TokenShape:
        """What both the base and our transformers take."""
        return self._shape
