"""What training on a GPU would otherwise wait for: norms, and the gradients of biases.

The library's group norm wants channels-first memory, so every norm of the CNN cost two changes of
layout, and one group per frame left most of the card idle: here norm and SiLU are one pass over
channels-last frames, forward and backward, as Triton kernels. The library sums the gradient of a
bias at a sixth of the card's bandwidth: here that is a product with ones. Both are used under
autocast alone; anything else takes the plain path.

Shapes: F frames, L pixels of a frame, C channels; memory order F, L, C. S chunks of a frame.
"""

from __future__ import annotations

import functools
import importlib.util
from typing import Any, cast

import torch
from torch import Tensor

__all__ = ["add_bias", "applies", "has_triton", "moments", "norm_silu", "normalise"]

# Elements of a tile and tiles of a chunk: a chunk is 32 K elements, so that even one small frame
# is spread over several of the card's multiprocessors.
_TILE = 4096
_TILES = 8


def applies(x: Tensor) -> bool:
    """Whether `norm_silu` takes this: on a GPU, under autocast, with Triton installed."""
    return x.is_cuda and torch.is_autocast_enabled("cuda") and has_triton()


def norm_silu(x_FLC: Tensor, weight_C: Tensor, bias_C: Tensor, *, eps: float, silu: bool) -> Tensor:
    """Normalise each frame over pixels and channels, scale, shift, and apply SiLU if asked.

    Args:
        x_FLC: Contiguous; any floating dtype.
        weight_C: float32.
        bias_C: float32.
        eps: Added to the variance.
        silu: False leaves it at the norm.

    Returns:
        Same shape; bfloat16 under autocast, else the input's dtype.
    """
    return cast(Tensor, _NormSilu.apply(x_FLC, weight_C, bias_C, eps, silu))


def add_bias(x_FLC: Tensor, bias_C: Tensor) -> Tensor:
    """``x + bias``, in the precision of ``x``; any leading dimensions, channels last in memory."""
    return cast(Tensor, _AddBias.apply(x_FLC, bias_C))


def moments(x_FLC: Tensor) -> Tensor:
    """Sum and sum of squares of each frame, ``[F, 2]`` float32, of a contiguous tensor."""
    frames, length, channels = x_FLC.shape
    layout = _layout(length, channels)
    partial_FS2 = x_FLC.new_empty((frames, layout["CHUNKS"], 2), dtype=torch.float32)
    _kernels().moments[(frames, layout["CHUNKS"])](x_FLC, partial_FS2, length, channels, **layout)
    return partial_FS2.sum(1)


def normalise(
    x_FLC: Tensor, sums_F2: Tensor, weight_C: Tensor, bias_C: Tensor, *, eps: float, silu: bool
) -> Tensor:
    """`norm_silu` without a gradient, from `moments`; bfloat16 under autocast."""
    frames, length, channels = x_FLC.shape
    layout = _layout(length, channels)
    dtype = torch.bfloat16 if torch.is_autocast_enabled("cuda") else x_FLC.dtype
    y_FLC = torch.empty_like(x_FLC, dtype=dtype)
    _kernels().apply[(frames, layout["CHUNKS"])](
        x_FLC, sums_F2, weight_C, bias_C, y_FLC, length, channels, eps, SILU=silu, **layout
    )
    return y_FLC


class _AddBias(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_FLC: Tensor, bias_C: Tensor) -> Tensor:  # noqa: ANN401
        del ctx
        return x_FLC + bias_C.to(x_FLC.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        del ctx
        grad_NC = grads[0].reshape(-1, grads[0].shape[-1])
        ones_1N = grad_NC.new_ones((1, len(grad_NC)))
        # Products of bfloat16 are summed in float32.
        return grads[0], (ones_1N @ grad_NC).squeeze(0).float()


class _NormSilu(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x_FLC: Tensor,
        weight_C: Tensor,
        bias_C: Tensor,
        eps: float,
        silu: bool,
    ) -> Tensor:
        sums_F2 = moments(x_FLC)
        arguments = (x_FLC, sums_F2, weight_C, bias_C)
        y_FLC = normalise(*arguments, eps=eps, silu=silu)
        ctx.save_for_backward(*arguments)
        ctx.eps, ctx.silu = eps, silu
        return y_FLC

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        kernels = _kernels()
        x_FLC, sums_F2, weight_C, bias_C = ctx.saved_tensors
        grad_FLC = grads[0].contiguous()
        frames, length, channels = x_FLC.shape
        layout = _layout(length, channels)
        grid = (frames, layout["CHUNKS"])
        shared = (x_FLC, sums_F2, weight_C, bias_C, grad_FLC)
        partial_FS2 = x_FLC.new_empty((*grid, 2), dtype=torch.float32)
        parameters_FS2C = x_FLC.new_empty((*grid, 2, channels), dtype=torch.float32)
        kernels.reduce_grad[grid](
            *shared, partial_FS2, parameters_FS2C, length, channels, ctx.eps,
            SILU=ctx.silu, **layout,
        )  # fmt: skip
        grad_x_FLC = torch.empty_like(x_FLC)
        kernels.apply_grad[grid](
            *shared, partial_FS2.sum(1), grad_x_FLC, length, channels, ctx.eps,
            SILU=ctx.silu, **layout,
        )  # fmt: skip
        grad_weight_C, grad_bias_C = parameters_FS2C.sum((0, 1))
        return grad_x_FLC, grad_weight_C, grad_bias_C, None, None


def _layout(length: int, channels: int) -> dict[str, int]:
    width = 1 << (channels - 1).bit_length()
    rows = max(1, _TILE // width)
    return {
        "ROWS": rows,
        "WIDTH": width,
        "TILES": _TILES,
        "CHUNKS": -(-length // (rows * _TILES)),
    }


@functools.cache
def has_triton() -> bool:
    """Whether its kernels can be compiled; builds of torch for CPUs do not bring it."""
    return importlib.util.find_spec("triton") is not None


@functools.cache
def _kernels() -> Any:  # noqa: ANN401  a module that exists only beside a GPU
    return importlib.import_module("infotok_core.fused_kernels")
