"""The fast path's operations on tensors: what a kernel of ours does better than the library.

All take and give channels-last memory in one floating dtype, bfloat16 or float16.

Shapes: B windows, T frames, L = H*W pixels of a frame, C channels; N = T*L tokens, G heads of D.
"""

from __future__ import annotations

import functools
import importlib
import math
from typing import Any

import torch
from torch import Tensor

from infotok_core import fused

__all__ = ["attend", "causal_conv", "norm_silu", "rotate"]


def norm_silu(x_BTLC: Tensor, weight_C: Tensor, bias_C: Tensor, *, eps: float, silu: bool) -> Tensor:
    """Normalise each frame over pixels and channels, scale, shift, and apply SiLU if asked."""
    y_FLC = fused.norm_silu(x_BTLC.flatten(0, 1), weight_C, bias_C, eps=eps, silu=silu)
    return y_FLC.view(x_BTLC.shape)


def causal_conv(
    x_BTLC: Tensor, weight_KCD: Tensor, bias_D: Tensor, skip_BTLD: Tensor | None = None
) -> Tensor:
    """Three taps over a pixel's past, frame 0 standing in for what was before it, plus ``skip``.

    Args:
        x_BTLC: Contiguous.
        weight_KCD: K = 3 taps, the oldest first; contiguous.
        bias_D: float32.
        skip_BTLD: Added to the result in float32; contiguous.
    """
    batch, frames, length, channels = x_BTLC.shape
    outputs, rows = weight_KCD.shape[2], batch * frames * length
    out_BTLD = x_BTLC.new_empty((batch, frames, length, outputs))
    # 128 x 128 tiles with a deep pipeline are what Hopper's matrix units want; fixed, see kernels.
    tile = {"BM": 128, "BN": min(128, _power_of_two(outputs, least=16)), "BK": 64}
    grid = (-(-rows // tile["BM"]) * -(-outputs // tile["BN"]),)
    _kernels().causal_conv[grid](
        x_BTLC, weight_KCD, bias_D, x_BTLC if skip_BTLD is None else skip_BTLD, out_BTLD,
        rows, frames, length, CIN=channels, COUT=outputs, HAS_SKIP=skip_BTLD is not None,
        GROUP=8, **tile, num_warps=8, num_stages=3,
    )  # fmt: skip
    return out_BTLD


def rotate(qkv_BNC: Tensor, turns_NE2: Tensor) -> Tensor:
    """Turned q and k, ``[2, B, N, C/3]``.

    Args:
        qkv_BNC: Contiguous; q, k and v side by side.
        turns_NE2: float32 cosines and sines of each position, E = D/2 pairs.
    """
    batch, tokens, triple = qkv_BNC.shape
    width, rows = triple // 3, batch * tokens
    out = qkv_BNC.new_empty((2, batch, tokens, width))
    _kernels().rotate[(-(-rows // 8), 2)](
        qkv_BNC, turns_NE2, out, rows, tokens,
        WIDTH=width, HEAD=2 * turns_NE2.shape[1], STRIDE=triple,
        PAIRS=_power_of_two(width // 2), BM=8,
    )  # fmt: skip
    return out


def attend(q_BNC: Tensor, k_BNC: Tensor, v_BNC: Tensor, *, heads: int, num_frames: int) -> Tensor:
    """`attention.block_causal_attention` on tokens as they lie, ``[B, N, C]``.

    q and k may be parts of wider rows, as long as both have the same ones; so may v.
    """
    batch, tokens, width = q_BNC.shape
    head, length = width // heads, tokens // num_frames
    out_BNC = torch.empty((batch, tokens, width), dtype=q_BNC.dtype, device=q_BNC.device)
    rows = min(128, _power_of_two(length, least=16))
    grid = (num_frames * -(-length // rows), batch * heads)
    _kernels().attend[grid](
        q_BNC, k_BNC, v_BNC, out_BNC, length, tokens, math.log2(math.e) / math.sqrt(head),
        heads=heads, HEAD=head, PAD=_power_of_two(head, least=16),
        QK_STRIDE=q_BNC.stride(1), V_STRIDE=v_BNC.stride(1),
        BM=rows, BN=128, PAIRS=q_BNC.is_cuda, num_warps=8 if rows == 128 else 4, num_stages=2,
    )  # fmt: skip
    return out_BNC


def _power_of_two(number: int, *, least: int = 1) -> int:
    return max(least, 1 << (number - 1).bit_length())


@functools.cache
def _kernels() -> Any:  # noqa: ANN401  a module that exists only beside a GPU
    return importlib.import_module("infotok_core.fast.kernels")
