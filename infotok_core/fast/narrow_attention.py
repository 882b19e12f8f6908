"""Attention for heads of 8 by a CUDA kernel of ours (``narrow_attention.cu``).

Triton multiplies matrices in steps of 16, so heads of 8 waste half of every product, and it does
not say which thread holds which score. Compiled on first use, in a second or so, by the NVRTC that
comes with torch.

Scores are float16: beyond 4096 (of base 2) their steps are too coarse for weights. Queries beyond
4000, scale and log2(e) included, become infinite by `BALANCE`, and their results NaN.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["BALANCE", "HEAD", "attend", "is_for"]

HEAD = 8
# What queries are multiplied and keys divided by. Half of the scores are products of queries times
# 1/512, which float16 has in full only of queries from 2^-5 on; so from 2^-9 on, and of keys from
# 2^-10 on. Below, a score may be off by 8 * 2^-20 times the largest key, or query.
BALANCE = 16.0
_TILES, _WARPS = 2, 4  # by a sweep: docs/performance.md


def is_for(device: torch.device, head: int) -> bool:
    """Whether the kernel takes heads of so many channels on that device."""
    return (
        head == HEAD
        and device.type == "cuda"
        and torch.version.hip is None
        and torch.cuda.get_device_capability(device) >= (8, 0)
        # Not a public name, so it may go: then Triton's kernel is used.
        and hasattr(torch.cuda, "_compile_kernel")
    )


def attend(packed_3BHN8: Tensor, out_BNC: Tensor, *, num_frames: int) -> None:
    """Block-causal attention: each query over the frames up to its own.

    Args:
        packed_3BHN8: float16 queries (times the scale, log2(e) and `BALANCE`), keys (divided by
            `BALANCE`) and values; contiguous.
        out_BNC: Written; float16 or bfloat16, C = 8 H; contiguous.
        num_frames: Latent frames in N tokens.
    """
    _, batch, heads, tokens, _ = packed_3BHN8.shape
    length = tokens // num_frames
    blocks = -(-length // (16 * _TILES * _WARPS))
    with torch.cuda.device(out_BNC.device):
        _kernel(out_BNC.device.index)(
            grid=(num_frames * blocks, batch * heads, 1),
            block=(32 * _WARPS, 1, 1),
            args=[*packed_3BHN8, out_BNC, length, tokens, heads, out_BNC.dtype == torch.bfloat16],
        )


@functools.cache
def _kernel(device_index: int) -> Any:  # noqa: ANN401  torch names no type
    source = Path(__file__).with_name("narrow_attention.cu").read_text()
    head = f"#define TILES {_TILES}\n#define WARPS {_WARPS}\n"
    return torch.cuda._compile_kernel(head + source, "attend")  # pyright: ignore
