"""The fast path's operations on tensors: what a kernel of ours does better than the library.

All take and give channels-last memory in one floating dtype, bfloat16 or float16; sums and scores
are float32.

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
from infotok_core.fast import narrow_attention
from infotok_core.fast.tiles import power_of_two

__all__ = [
    "add_norm",
    "attend",
    "attend_in_time",
    "causal_conv",
    "double",
    "gate",
    "norm",
    "norm_silu",
    "softmax",
]


def norm_silu(
    x_BTLC: Tensor,
    weight_C: Tensor,
    bias_C: Tensor,
    sums_F2: Tensor | None = None,
    *,
    eps: float,
    silu: bool,
) -> Tensor:
    """Normalise each frame over pixels and channels, scale, shift, and apply SiLU if asked.

    Args:
        x_BTLC: Contiguous.
        weight_C: float32.
        bias_C: float32.
        sums_F2: Sum and sum of squares of each frame, where they are known; float32.
        eps: Added to the variance.
        silu: False leaves it at the norm.
    """
    flat_FLC = x_BTLC.flatten(0, 1)
    if sums_F2 is None:
        sums_F2 = fused.moments(flat_FLC)
    return fused.normalise(flat_FLC, sums_F2, weight_C, bias_C, eps=eps, silu=silu).view_as(x_BTLC)


def causal_conv(
    x_BTLC: Tensor,
    weight_KCD: Tensor,
    bias_D: Tensor,
    skip_BTLD: Tensor | None = None,
    *,
    stride: int = 1,
    repeat: bool = False,
    wants_sums: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Three taps over a pixel's past, frame 0 standing in for what was before it, plus ``skip``.

    Args:
        x_BTLC: Contiguous.
        weight_KCD: K = 3 taps, the oldest first; contiguous.
        bias_D: float32.
        skip_BTLD: Added to the result in float32; contiguous.
        stride: Of the frames that are wanted: 0, stride, 2 stride...
        repeat: Read as if every frame but the first stood there twice.
        wants_sums: Whether the caller normalises the result next.

    Returns:
        The result, and what `norm_silu` takes as its sums; None where that is not to be had.
    """
    batch, frames_in, length, channels = x_BTLC.shape
    outputs = weight_KCD.shape[2]
    frames = 2 * frames_in - 1 if repeat else -(-frames_in // stride)
    rows = batch * frames * length
    out_BTLD = x_BTLC.new_empty((batch, frames, length, outputs))
    # Tiles that Hopper's matrix units want; fixed, so that results are.
    tile = {"BM": 128, "BN": min(256, power_of_two(outputs, least=16)), "BK": 64}
    across = -(-outputs // tile["BN"])
    has_sums = wants_sums and length % tile["BM"] == 0
    partial_FS2 = torch.empty(
        (batch * frames if has_sums else 0, length // tile["BM"] * across, 2),
        dtype=torch.float32, device=x_BTLC.device,
    )  # fmt: skip
    tensors = [bias_D, x_BTLC if skip_BTLD is None else skip_BTLD, out_BTLD, partial_FS2]
    sizes = [rows, frames, frames_in, length]
    options = {
        "CIN": channels, "COUT": outputs, "HAS_SKIP": skip_BTLD is not None, "MOMENTS": has_sums,
        "STRIDE": stride, "REPEAT": repeat, "GROUP": 8, **tile,
    }  # fmt: skip
    _convolve(x_BTLC, weight_KCD, tensors, sizes, options)
    return out_BTLD, partial_FS2.sum(1) if has_sums else None


def _convolve(
    x_BTLC: Tensor,
    weight_KCD: Tensor,
    tensors: list[Tensor],
    sizes: list[int],
    options: dict[str, int],
) -> None:
    """By tiles where the card and the shape allow it; the arguments are those of the kernels."""
    rows, _, _, length = sizes
    height, width, step = options["BM"], options["BN"], options["BK"]
    tiles = -(-rows // height) * -(-options["COUT"] // width)
    even = options["COUT"] % width == options["CIN"] % step == 0
    if even and length % height == 0 and _copies_tiles(x_BTLC, weight_KCD):
        programs = min(tiles, torch.cuda.get_device_properties(x_BTLC.device).multi_processor_count)
        _kernels("conv_kernels").causal_conv_of_tiles[(programs,)](
            _tiles(x_BTLC, height, step), _tiles(weight_KCD, step, width), *tensors, *sizes,
            **options, PROGRAMS=programs, num_warps=8, num_stages=4,
        )  # fmt: skip
        return
    _kernels("conv_kernels").causal_conv[(tiles,)](
        x_BTLC, weight_KCD, *tensors, *sizes, **options, EVEN=even and rows % height == 0,
        num_warps=8, num_stages=3,
    )  # fmt: skip


def double(y_FHWD: Tensor, bias_C: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (2i + a, 2j + b) from what was made of them at (i + a, j + b), plus a bias.

    Args:
        y_FHWD: ``[F, H + 1, W + 1, 4 C]``, contiguous; the last dimension is a, b, channel.
        bias_C: float32.

    Returns:
        ``[F, 2 H, 2 W, C]``, and what `norm_silu` takes as its sums.
    """
    frames, height, width, outputs = y_FHWD.shape
    height, width, channels = height - 1, width - 1, outputs // 4
    out = y_FHWD.new_empty((frames, 2 * height, 2 * width, channels))
    across = -(-2 * width // 16)
    partial_FS2 = torch.empty(
        (frames, 2 * height * across, 2), dtype=torch.float32, device=y_FHWD.device
    )
    _kernels().double[(across, 2 * height, frames)](
        y_FHWD, bias_C, out, partial_FS2, height, width,
        CHANNELS=channels, PADDED=power_of_two(channels), BM=16,
    )  # fmt: skip
    return out, partial_FS2.sum(1)


def attend(
    qkv_BNC: Tensor,
    turns_NE2: Tensor,
    weight_2CC: Tensor | None,
    bias_2C: Tensor,
    *,
    heads: int,
    num_frames: int,
) -> Tensor:
    """`attention.block_causal_attention` on tokens as they lie, after the turns: ``[B, N, C/3]``.

    Args:
        qkv_BNC: q, k and v side by side; contiguous.
        turns_NE2: float32 cosines and sines of each position, E = D/2 pairs; contiguous.
        weight_2CC: What turned q and turned k are multiplied by, from the right; contiguous. None
            leaves them.
        bias_2C: Added to them then; float32.
        heads: Of D channels each.
        num_frames: Latent frames in the sequence.
    """
    batch, tokens, triple = qkv_BNC.shape
    head, length = triple // 3 // heads, tokens // num_frames
    out_BNC = qkv_BNC.new_empty((batch, tokens, triple // 3))
    packed = _pack(qkv_BNC, turns_NE2, weight_2CC, bias_2C, heads)
    if narrow_attention.is_for(qkv_BNC.device, head):
        narrow_attention.attend(packed, out_BNC, num_frames=num_frames)
        return out_BNC
    rows = min(32, power_of_two(length, least=16))
    _kernels("attention_kernels").attend[(num_frames * -(-length // rows), batch * heads)](
        *packed, out_BNC, length, tokens, heads=heads, HEAD=head, PAD=packed.shape[-1],
        BM=rows, BN=64, PAIRS=qkv_BNC.is_cuda, num_warps=rows // 16, num_stages=3,
    )  # fmt: skip
    return out_BNC


def _pack(
    qkv_BNC: Tensor, turns_NE2: Tensor, weight_2CC: Tensor | None, bias_2C: Tensor, heads: int
) -> Tensor:
    """What the kernels of attention take, ``[3, B, G, N, D or what it is padded to]`` float16."""
    batch, tokens, triple = qkv_BNC.shape
    rows, head = batch * tokens, triple // 3 // heads
    narrow = narrow_attention.is_for(qkv_BNC.device, head)
    pad = head if narrow else power_of_two(head, least=16)
    balance = narrow_attention.BALANCE if narrow else 1.0
    packed = qkv_BNC.new_empty((3, batch, heads, tokens, pad), dtype=torch.float16)
    # Whole heads to a tile; fixed, see kernels.
    height, *tile, warps = (32, 128, 128, 4) if weight_2CC is None else (64, 128, 32, 4)
    width, step = (max(pad, min(n, power_of_two(heads * pad, least=16))) for n in tile)
    _kernels("attention_kernels").pack[(-(-rows // height) * 3 * -(-heads * pad // width),)](
        qkv_BNC, turns_NE2, qkv_BNC if weight_2CC is None else weight_2CC, bias_2C, packed,
        rows, tokens, math.log2(math.e) / math.sqrt(head) * balance, 1 / balance,
        HEADS=heads, HEAD=head, PAD=pad, AGAIN=weight_2CC is not None,
        BM=height, BN=width, BK=step, num_warps=warps, num_stages=3 if pad <= 64 else 1,
    )  # fmt: skip
    return packed


def softmax(score_FLL: Tensor, dtype: torch.dtype, *, scale: float) -> Tensor:
    """Of each row of float32 scores times a positive scale, in a ``dtype``; contiguous."""
    out = torch.empty_like(score_FLL, dtype=dtype)
    length = score_FLL.shape[-1]
    _kernels("attention_kernels").softmax[(score_FLL.numel() // length,)](
        score_FLL, out, length, scale, PADDED=power_of_two(length)
    )
    return out


def attend_in_time(q_BTLC: Tensor, k_BTLC: Tensor, v_BTLC: Tensor) -> Tensor:
    """Attention of each pixel to itself, in its own frame and those before; contiguous.

    Args:
        q_BTLC: Queries; at most a few dozen frames, which a program holds at once.
        k_BTLC: Keys.
        v_BTLC: Values.
    """
    batch, frames, length, width = q_BTLC.shape
    out = torch.empty_like(q_BTLC)
    _kernels("attention_kernels").attend_in_time[(batch * length,)](
        q_BTLC, k_BTLC, v_BTLC, out, frames, length, 1 / math.sqrt(width), WIDTH=width,
        PADDED=power_of_two(width, least=16), FRAMES=power_of_two(frames, least=16), num_warps=8,
    )  # fmt: skip
    return out


def gate(x_BNC: Tensor) -> Tensor:
    """``silu(a) * b`` where a and b are the halves of each row; contiguous."""
    rows, width = x_BNC.shape[:-1].numel(), x_BNC.shape[-1] // 2
    out = x_BNC.new_empty((*x_BNC.shape[:-1], width))
    _kernels().gate[(-(-rows // 8),)](
        x_BNC, out, rows, WIDTH=width, PADDED=power_of_two(width), BM=8
    )
    return out


def norm(x_BNC: Tensor, weight_C: Tensor, *, eps: float) -> Tensor:
    """Root-mean-square norm over channels; contiguous."""
    return _add_norm(x_BNC, None, weight_C, eps)[1]


def add_norm(
    x_BNC: Tensor, y_BNC: Tensor, weight_C: Tensor, *, eps: float
) -> tuple[Tensor, Tensor]:
    """``x + y`` and `norm` of it, in one pass; contiguous."""
    return _add_norm(x_BNC, y_BNC, weight_C, eps)


def _add_norm(
    x_BNC: Tensor, y_BNC: Tensor | None, weight_C: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    rows, width = x_BNC.shape[:-1].numel(), x_BNC.shape[-1]
    adds = y_BNC is not None
    total, out = torch.empty_like(x_BNC) if adds else x_BNC, torch.empty_like(x_BNC)
    _kernels().add_norm[(-(-rows // 8),)](
        x_BNC, y_BNC if adds else x_BNC, weight_C, total, out, rows, eps,
        WIDTH=width, PADDED=power_of_two(width), ADDS=adds, BM=8,
    )  # fmt: skip
    return total, out


def _copies_tiles(*tensors: Tensor) -> bool:
    """Whether the card's bulk copies take them, at multiples of 16 bytes.

    Of the cards that have such copies, those for data centres have the 224 KB that the tiles take.
    """
    major, _ = torch.cuda.get_device_capability(tensors[0].device)
    return major in (9, 10) and all(x.data_ptr() % 16 == 0 for x in tensors)


def _tiles(x: Tensor, height: int, width: int) -> Any:  # noqa: ANN401  Triton's descriptor
    """Rows of the last dimension, to be copied by blocks."""
    descriptors = importlib.import_module("triton.tools.tensor_descriptor")
    return descriptors.TensorDescriptor.from_tensor(x.flatten(0, -2), [height, width])


@functools.cache
def _kernels(module: str = "kernels") -> Any:  # noqa: ANN401  a module that exists only beside a GPU
    return importlib.import_module(f"infotok_core.fast.{module}")
