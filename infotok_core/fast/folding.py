"""Layers without anything bent between them, made one: in float64, so that it is rounded once.

Exact in real numbers. Kernels are ``[D, C, H, W]``, taps in time ``[K, C, D]``, the oldest first.
"""

from __future__ import annotations

import torch
from torch import Tensor

from infotok_core.layers import SpatialConv, TemporalConv

__all__ = ["channels_last", "identity", "spatial", "taps_then", "temporal", "then", "through"]


def channels_last(kernel_DCHW: Tensor, dtype: torch.dtype) -> Tensor:
    """Rounded, in the memory layout of the activations."""
    return kernel_DCHW.to(dtype, memory_format=torch.channels_last)


def spatial(conv: SpatialConv) -> tuple[Tensor, Tensor]:
    """Kernel and bias of a convolution within frames."""
    kernel_DCHW, bias_D = conv.conv3d.weight.detach()[:, :, 0], conv.conv3d.bias
    assert bias_D is not None
    return kernel_DCHW.double(), bias_D.detach().double()


def temporal(conv: TemporalConv) -> tuple[Tensor, Tensor]:
    """Taps and bias of a convolution in time."""
    taps_KCD, bias_D = conv.conv3d.weight.detach()[..., 0, 0].permute(2, 1, 0), conv.conv3d.bias
    assert bias_D is not None
    return taps_KCD.double().contiguous(), bias_D.detach().double()


def identity(bias_C: Tensor) -> Tensor:
    """The unit matrix of as many channels as there are biases."""
    return torch.eye(len(bias_C), dtype=bias_C.dtype, device=bias_C.device)


def through(before_C: Tensor, taps_KCD: Tensor) -> Tensor:
    """What a bias comes to behind a causal convolution that is applied to what lacks it, ``[D]``.

    Every tap sees a frame that should have it: the causal padding repeats a frame, it is no zero.
    """
    return before_C @ taps_KCD.sum(0)


def then(
    kernel_DCHW: Tensor, bias_D: Tensor, weight_ED11: Tensor, bias_E: Tensor
) -> tuple[Tensor, Tensor]:
    """A convolution and the pointwise layer behind it."""
    weight_ED = weight_ED11[..., 0, 0]
    return torch.einsum("ed,dchw->echw", weight_ED, kernel_DCHW), weight_ED @ bias_D + bias_E


def taps_then(
    taps_KCD: Tensor, bias_D: Tensor, weight_ED11: Tensor, bias_E: Tensor
) -> tuple[Tensor, Tensor]:
    """A convolution in time and the pointwise layer behind it."""
    weight_ED = weight_ED11[..., 0, 0]
    return taps_KCD @ weight_ED.T, weight_ED @ bias_D + bias_E
