"""Triton kernels of norms, gates and doubled pixels; imported only where Triton is."""

# pyright: basic, reportMissingImports=false

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["add_norm", "double", "gate"]


@triton.jit
def double(
    y_ptr, bias_ptr, out_ptr, partial_ptr, height, width,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """Pixels from what was made of them: ``out[2i + a, 2j + b] = y[i + a, j + b, a, b] + bias``.

    y is (F, height + 1, width + 1, 2, 2, C) in memory, out (F, 2 height, 2 width, C), partial
    (F, programs of a frame, 2): sum and sum of squares of what each stored.
    """
    column = tl.program_id(0) * BM + tl.arange(0, BM)
    row, frame = tl.program_id(1), tl.program_id(2)
    channel = tl.arange(0, PADDED)
    inside = (column < 2 * width)[:, None] & (channel < CHANNELS)[None, :]
    a, b = row % 2, column % 2
    source = (frame.to(tl.int64) * (height + 1) + row // 2 + a) * (width + 1) + column // 2 + b
    place = (source * 4 + 2 * a + b)[:, None] * CHANNELS + channel[None, :]
    y = tl.load(y_ptr + place, mask=inside, other=0.0).to(tl.float32)
    y += tl.load(bias_ptr + channel, mask=channel < CHANNELS, other=0.0)[None, :]
    target = (frame.to(tl.int64) * 2 * height + row) * 2 * width + column
    place = target[:, None] * CHANNELS + channel[None, :]
    rounded = y.to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + place, rounded, mask=inside)
    seen = tl.where(inside, rounded.to(tl.float32), 0.0)
    tile = (frame.to(tl.int64) * 2 * height + row) * tl.num_programs(0) + tl.program_id(0)
    tl.store(partial_ptr + 2 * tile, tl.sum(seen))
    tl.store(partial_ptr + 2 * tile + 1, tl.sum(seen * seen))


@triton.jit
def gate(x_ptr, out_ptr, rows, WIDTH: tl.constexpr, PADDED: tl.constexpr, BM: tl.constexpr):
    """``silu(a) * b`` of rows ``[a, b]``, WIDTH each."""
    row = (tl.program_id(0) * BM + tl.arange(0, BM)).to(tl.int64)
    column = tl.arange(0, PADDED)
    inside = (row < rows)[:, None] & (column < WIDTH)[None, :]
    place = row[:, None] * (2 * WIDTH) + column[None, :]
    a = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(x_ptr + place + WIDTH, mask=inside, other=0.0).to(tl.float32)
    y = a * tl.sigmoid(a) * b
    tl.store(
        out_ptr + row[:, None] * WIDTH + column[None, :],
        y.to(out_ptr.dtype.element_ty),
        mask=inside,
    )


@triton.jit
def add_norm(
    x_ptr, y_ptr, weight_ptr, sum_ptr, out_ptr, rows, eps,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, ADDS: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """Root-mean-square norm of rows of x, or of ``sum = x + y`` if ADDS, rounded first."""
    row = (tl.program_id(0) * BM + tl.arange(0, BM)).to(tl.int64)
    column = tl.arange(0, PADDED)
    inside = (row < rows)[:, None] & (column < WIDTH)[None, :]
    place = row[:, None] * WIDTH + column[None, :]
    x = tl.load(x_ptr + place, mask=inside, other=0.0)
    if ADDS:
        y = tl.load(y_ptr + place, mask=inside, other=0.0)
        x = (x.to(tl.float32) + y.to(tl.float32)).to(x.dtype)
        tl.store(sum_ptr + place, x, mask=inside)
    wide = x.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, 1) / WIDTH + eps)
    weight = tl.load(weight_ptr + column, mask=column < WIDTH, other=0.0).to(tl.float32)
    normed = wide * scale[:, None] * weight[None, :]
    tl.store(out_ptr + place, normed.to(out_ptr.dtype.element_ty), mask=inside)
