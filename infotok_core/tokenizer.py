"""The tokenizer as its callers see it: uint8 video to tokens with their information, and back.

`VideoCodec` is that view; `Tokenizer` is a network of ours behind it, `programs.ProgramTokenizer`
anybody's fixed-rate tokenizer.

Shapes: B windows, T frames, H rows, W columns, C = 3 colours; lower-case t, h, w the latent grid.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from infotok_core.checkpoint import Checkpoint, load_checkpoint
from infotok_core.config import TokenizerConfig
from infotok_core.fast import pixels
from infotok_core.fast.network import Recorded, accelerate
from infotok_core.information import InformationSource, token_information
from infotok_core.network import Network
from infotok_core.shape import TokenShape, shape_of

__all__ = [
    "Analysis",
    "Tokenizer",
    "VideoCodec",
    "from_uint8",
    "to_uint8",
    "valid_latent_frames",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """Everything selection needs: nothing the encoder does depends on the rate."""

    codes_Bthw: Tensor
    """int32 in [0, codebook size)."""
    information_Bthw: Tensor
    """float32, >= 0: mean |x - y| on pixels in [-1, 1], measured or predicted; see
    `token_information` and `InformationSource`."""


def valid_latent_frames(num_frames: int, temporal_compression: int) -> int:
    """Latent frames that hold something of the first ``num_frames`` frames of a padded window."""
    if num_frames < 1:
        raise ValueError(f"a window has at least one frame, not {num_frames}")
    return 1 + -(-(num_frames - 1) // temporal_compression)


def from_uint8(video_BTHWC: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """``[B, C, T, H, W]`` in [-1, 1]."""
    return (video_BTHWC.permute(0, 4, 1, 2, 3).float() / 255 * 2 - 1).to(dtype)


def to_uint8(video_BCTHW: Tensor) -> Tensor:
    """``[B, T, H, W, C]`` uint8, rounded half up, from [-1, 1]; what lies outside is clamped."""
    unit = ((video_BCTHW.float() + 1) / 2).clamp(0, 1)
    return (unit * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 4, 1)


class VideoCodec(ABC):
    """A fixed-rate tokenizer on a device, in a precision: everything above the network needs.

    On a CPU windows run one at a time, so a result never depends on which others it came with; the
    caller sets the number of threads once, since that may change the last bit. On a GPU the batch
    runs as given: pad it to a fixed size where bytes have to repeat.

    Attributes:
        fingerprint: Identity of what computes, hex: the same one gives the same tokens.

    Raises:
        ValueError: If the device does not compute in ``dtype``.
    """

    def __init__(self, fingerprint: str, *, device: str | torch.device, dtype: torch.dtype) -> None:
        self.fingerprint = fingerprint
        self.device = torch.device(device)
        self.dtype = dtype
        if self.device.type == "cpu" and dtype != torch.float32:
            raise ValueError(f"the CPU computes in float32 alone, not {dtype}")

    @property
    @abstractmethod
    def config(self) -> TokenizerConfig | TokenShape:
        """Compression and vocabulary; for a network of ours its whole configuration."""

    @abstractmethod
    def _analyse(self, video_u8_BTHWC: Tensor) -> Analysis:
        """`analyse` for a checked part of the batch, on the device."""

    @abstractmethod
    def _reconstruct(self, codes_Bthw: Tensor, keep_Bthw: Tensor) -> Tensor:
        """`reconstruct` for a checked part of the batch, on the device."""

    @property
    def shape(self) -> TokenShape:
        """Compression, vocabulary, and the windows that are taken."""
        return shape_of(self.config)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """The grid (t, h, w) of a window.

        Raises:
            ValueError: If the tokenizer does not take such a window; nothing is padded here.
        """
        return self.shape.grid(frames, height, width)

    @torch.inference_mode()
    def analyse(self, video_u8_BTHWC: Tensor) -> Analysis:
        """Tokens of every position, and the information of each, on the tokenizer's device.

        Args:
            video_u8_BTHWC: uint8 RGB, at full window shape, on any device.

        Raises:
            ValueError: If dtype or shape do not fit.
        """
        if video_u8_BTHWC.dtype != torch.uint8 or video_u8_BTHWC.dim() != 5:
            raise ValueError(
                f"expected uint8 [B, T, H, W, 3], not {video_u8_BTHWC.dtype} "
                f"{list(video_u8_BTHWC.shape)}"
            )
        batch, frames, height, width, colours = video_u8_BTHWC.shape
        if batch < 1 or colours != 3:
            raise ValueError(f"expected at least one window of 3 colours: {[batch, colours]}")
        self.latent_shape(frames, height, width)
        parts = [self._analyse(part) for part in self._parts(video_u8_BTHWC)]
        return Analysis(
            codes_Bthw=torch.cat([part.codes_Bthw for part in parts]),
            information_Bthw=torch.cat([part.information_Bthw for part in parts]),
        )

    @torch.inference_mode()
    def reconstruct(self, codes_Bthw: Tensor, keep_Bthw: Tensor) -> Tensor:
        """The video that kept tokens give, ``[B, T, H, W, 3]`` uint8 on the tokenizer's device.

        Args:
            codes_Bthw: Integer indices; ignored where dropped, but still in the codebook's range.
            keep_Bthw: bool; False drops a position (it becomes the zero code).

        Raises:
            ValueError: If shapes differ or an index is outside the codebook.
        """
        if codes_Bthw.shape != keep_Bthw.shape or codes_Bthw.dim() != 4:
            raise ValueError(
                f"codes {list(codes_Bthw.shape)} and keep {list(keep_Bthw.shape)} "
                "are not both [B, t, h, w]"
            )
        low, high = int(codes_Bthw.min()), int(codes_Bthw.max())
        if low < 0 or high >= self.config.codebook_size:
            raise ValueError(f"codes {low}..{high} exceed 0..{self.config.codebook_size - 1}")
        pairs = zip(self._parts(codes_Bthw), self._parts(keep_Bthw), strict=True)
        return torch.cat([self._reconstruct(codes, keep) for codes, keep in pairs])

    def _parts(self, batch: Tensor) -> list[Tensor]:
        parts = batch.split(1) if self.device.type == "cpu" else (batch,)
        return [part.to(self.device) for part in parts]


class Tokenizer(VideoCodec):
    """A network of ours; in half precision on a GPU by kernels of its own (see `fast`).

    Args:
        checkpoint: Which.
        device: Where it runs.
        dtype: What it computes in.
        information: What `analyse` says of the tokens, measured or predicted; the tokens and the
            fingerprint are the same.

    Raises:
        ValueError: If the device does not compute in ``dtype`` (half precision needs Triton), or
            the network has no latent router and ``information`` asks for one.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        information: InformationSource = "elbo",
    ) -> None:
        super().__init__(checkpoint.fingerprint, device=device, dtype=dtype)
        if information == "latent" and not checkpoint.network.config.latent_router:
            raise ValueError(
                "this checkpoint has no latent router, so information = latent is not possible: "
                "train one (part = latent_router) or measure it (elbo)"
            )
        self.information: InformationSource = information
        self.ema_loss: float | None = checkpoint.ema_loss
        self._analyse_batch, self._decode_batch = self._analysed, self._decoded
        self._from_uint8, self._token_information = from_uint8, token_information
        self.network: Network = checkpoint.network
        if self.device.type == "cuda" and dtype in (torch.float16, torch.bfloat16):
            self.network = accelerate(self.network, device=self.device, dtype=dtype)
            self._analyse_batch = Recorded(self._analysed)
            self._decode_batch = Recorded(self._decoded)
            self._from_uint8 = pixels.from_uint8
            self._token_information = pixels.token_information
            return
        self.network.to(device=self.device, dtype=dtype)
        self.network.requires_grad_(requires_grad=False).eval()
        for parameter in self.network.parameters():
            if parameter.dim() == 5:
                # The layout of the activations: 8 % less CPU time for the mini network.
                layout = torch.channels_last_3d
                parameter.data = parameter.data.contiguous(memory_format=layout)

    @classmethod
    def load(
        cls,
        checkpoint: str | Path = "default",
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        config: TokenizerConfig | None = None,
        information: InformationSource = "elbo",
    ) -> Self:
        """Load weights (see `load_checkpoint`) and place them.

        Raises:
            CheckpointError: If the weights cannot be used.
            ValueError: As the class does.
        """
        return cls(
            load_checkpoint(checkpoint, config=config),
            device=device, dtype=dtype, information=information,
        )  # fmt: skip

    @property
    def config(self) -> TokenizerConfig:
        """The network's shape."""
        return self.network.config

    @torch.inference_mode()
    def encode_kept(self, video_u8_BTHWC: Tensor, keep_Bthw: Tensor) -> Tensor:
        """Tokens for a given mask: int32 ``[B, t, h, w]``, of use where ``keep`` is True.

        Those of `analyse`, unless the network is budget-aware: its tokens depend on the mask.

        Args:
            video_u8_BTHWC: As `analyse` takes.
            keep_Bthw: bool; False where the token will be dropped.
        """
        pairs = zip(self._parts(video_u8_BTHWC), self._parts(keep_Bthw), strict=True)
        return torch.cat([self._encoded(video, keep) for video, keep in pairs])

    def _encoded(self, video_u8_BTHWC: Tensor, keep_Bthw: Tensor) -> Tensor:
        gpu = self.device.type == "cuda"
        # Kernels of ours run on the current device.
        with torch.cuda.device(self.device) if gpu else contextlib.nullcontext():
            latent_Bzthw = self.network.encode(self._from_uint8(video_u8_BTHWC))
            latent_Bzthw = self.network.compress(latent_Bzthw, keep_Bthw.unsqueeze(1))
            return self.network.quantize(latent_Bzthw).indices_BTHW

    def _analyse(self, video_u8_BTHWC: Tensor) -> Analysis:
        codes_Bthw, information_Bthw = self._analyse_batch(video_u8_BTHWC)
        return Analysis(codes_Bthw=codes_Bthw, information_Bthw=information_Bthw)

    def _analysed(self, video_u8_BTHWC: Tensor) -> tuple[Tensor, Tensor]:
        video_BCTHW = self._from_uint8(video_u8_BTHWC)
        latent_Bzthw = self.network.compress(self.network.encode(video_BCTHW))
        tokens = self.network.quantize(latent_Bzthw)
        if self.information == "latent":
            return tokens.indices_BTHW, self.network.predict_information(latent_Bzthw)
        reconstruction_BCTHW = self.network.decode_codes(tokens.codes_BCTHW)
        information_Bthw = self._token_information(
            video_BCTHW,
            reconstruction_BCTHW.float(),
            temporal=self.config.temporal_compression,
            spatial=self.config.spatial_compression,
        )
        return tokens.indices_BTHW, information_Bthw

    def _reconstruct(self, codes_Bthw: Tensor, keep_Bthw: Tensor) -> Tensor:
        return self._decode_batch(codes_Bthw, keep_Bthw)[0]

    def _decoded(self, codes_Bthw: Tensor, keep_Bthw: Tensor) -> tuple[Tensor]:
        codes_BCthw = self.network.dequantize(codes_Bthw)
        keep_B1thw = keep_Bthw.unsqueeze(1).to(codes_BCthw.dtype)
        return (to_uint8(self.network.decode_codes(codes_BCthw * keep_B1thw, keep_B1thw)),)
