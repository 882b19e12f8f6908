"""Between pixels and the network, in one pass each: the plain functions' results, up to rounding.

Shapes: B videos, C colours, T frames, H rows, W columns; t, h, w the latent grid.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import torch
from torch import Tensor, nn

from infotok_core.fast.tiles import power_of_two
from infotok_core.patching import Patcher, Unpatcher

__all__ = ["FastPatcher", "FastUnpatcher", "from_uint8", "token_information"]


def from_uint8(video_BTHWC: Tensor) -> Tensor:
    """`tokenizer.from_uint8` on a GPU: float32 ``[B, C, T, H, W]``, as a view of that layout."""
    video = video_BTHWC.contiguous()
    out = torch.empty_like(video, dtype=torch.float32)
    _kernels().to_float[(-(-video.numel() // 4096),)](
        video, _levels(video.device), out, video.numel(), BM=4096
    )
    return out.permute(0, 4, 1, 2, 3)


def token_information(
    video_BCTHW: Tensor, reconstruction_BCTHW: Tensor, *, temporal: int, spatial: int
) -> Tensor:
    """`information.token_information` on a GPU, of a contiguous reconstruction."""
    batch, _, frames, height, width = video_BCTHW.shape
    t, h, w = 1 + (frames - 1) // temporal, height // spatial, width // spatial
    out = video_BCTHW.new_empty((batch, t, h, w), dtype=torch.float32)
    pixels = power_of_two(spatial * spatial)
    _kernels().information[(-(-w // 16), h, batch * t)](
        video_BCTHW, reconstruction_BCTHW.contiguous(), out, frames, t, h, w,
        *video_BCTHW.stride(), TEMPORAL=temporal, SPATIAL=spatial, PIXELS=pixels, BM=16,
    )  # fmt: skip
    return out


class _FastHaar(nn.Module):
    def __init__(self, plain: Patcher | Unpatcher) -> None:
        super().__init__()
        self.size = round(len(plain.matrix) ** (1 / 3))
        self.register_buffer("matrix", plain.matrix.detach().contiguous())

    matrix: Tensor

    @staticmethod
    def takes(plain: Patcher | Unpatcher) -> bool:
        """Whether a program holds its matrix: of patches of 4 at most."""
        return len(plain.matrix) <= 64


class FastPatcher(_FastHaar):
    """`Patcher`, from float32 to the path's precision, channels last."""

    def __init__(self, patcher: Patcher, dtype: torch.dtype) -> None:
        super().__init__(patcher)
        self.dtype = dtype

    def forward(self, video_BCTHW: Tensor) -> Tensor:
        """See `patching.patch`."""
        size, video_BCTHW = self.size, video_BCTHW.float()
        batch, _, frames, height, width = video_BCTHW.shape
        t, h, w = (frames - 1) // size + 1, height // size, width // size
        out = video_BCTHW.new_empty((batch, t, h, w, 3 * size**3), dtype=self.dtype)
        tile = _tile(w, size)
        _kernels().patch[(-(-w // tile["BM"]), h, batch * t)](
            video_BCTHW, self.matrix, out, t, h, w, *video_BCTHW.stride(), **tile
        )
        return out.permute(0, 4, 1, 2, 3)


class FastUnpatcher(_FastHaar):
    """`Unpatcher`, to float32."""

    def forward(self, bands_BCTHW: Tensor) -> Tensor:
        """See `patching.unpatch`."""
        size = self.size
        batch, _, t, h, w = bands_BCTHW.shape
        frames = (t - 1) * size + 1
        shape = (batch, 3, frames, h * size, w * size)
        out = bands_BCTHW.new_empty(shape, dtype=torch.float32)
        tile = _tile(w, size)
        _kernels().unpatch[(-(-w // tile["BM"]), h, batch * t)](
            bands_BCTHW.permute(0, 2, 3, 4, 1).contiguous(), self.matrix, out, t, h, w, frames,
            **tile,
        )  # fmt: skip
        return out


def _tile(width: int, size: int) -> dict[str, int]:
    """Patches of a program: as many as the registers hold. A product is 16 wide at least."""
    samples = size**3
    most = 64 if samples <= 16 else 16
    rows = min(most, max(16, power_of_two(width)))
    return {"P": size, "K": samples, "PADDED": max(16, samples), "BM": rows}


@functools.cache
def _levels(device: torch.device) -> Tensor:
    """What each byte comes to in [-1, 1], by the plain arithmetic."""
    return torch.arange(256, dtype=torch.uint8, device=device).float() / 255 * 2 - 1


@functools.cache
def _kernels() -> Any:  # noqa: ANN401  a module that exists only beside a GPU
    return importlib.import_module("infotok_core.fast.pixel_kernels")
