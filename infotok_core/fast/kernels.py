"""Triton kernels of the fast path; imported only where Triton is.

Nothing is summed by atomics and no block size depends on a measurement: a result repeats bit for
bit, in any process, and a sample's does not depend on the batch around it.
"""

# pyright: basic, reportMissingImports=false

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["causal_conv", "double", "gate"]


@triton.jit
def causal_conv(
    x_ptr, weight_ptr, bias_ptr, skip_ptr, out_ptr, partial_ptr,
    rows, frames, frames_in, length,
    CIN: tl.constexpr, COUT: tl.constexpr, HAS_SKIP: tl.constexpr, MOMENTS: tl.constexpr,
    STRIDE: tl.constexpr, REPEAT: tl.constexpr, EVEN: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Three taps in time: ``out[t] = sum_k W[k] x[max(S t - 2 + k, 0)] + bias (+ skip[t])``.

    A matrix product whose left side is read from three frames; x is (B, frames_in, L, C) in memory,
    skip and out are (B, frames, L, C), the weight is (3, CIN, COUT), rows = B * frames * L.
    S: STRIDE. REPEAT: as if every frame of x but the first stood there twice. EVEN: every tile is
    full, in all three directions.
    MOMENTS: sum and sum of squares of each tile of ``out``, (B * frames, tiles, 2); L must be a
    multiple of BM.
    """
    # Blocks of one column of tiles share the weight, those of GROUP rows the input, both in L2.
    program = tl.program_id(0)
    across = tl.cdiv(COUT, BN)
    down = tl.cdiv(rows, BM)
    band = program // (GROUP * across)
    first = band * GROUP
    height = tl.minimum(down - first, GROUP)
    row_block = first + (program % (GROUP * across)) % height
    column_block = (program % (GROUP * across)) // height

    row = row_block * BM + tl.arange(0, BM)
    column = column_block * BN + tl.arange(0, BN)
    inside = row < rows
    pixel = row % length
    frame = (row // length) % frames
    sample = (row // length) // frames
    k = tl.arange(0, BK)
    total = tl.zeros((BM, BN), tl.float32)
    for tap in range(3):
        source = tl.maximum(frame * STRIDE + tap - 2, 0)
        if REPEAT:
            source = (source + 1) // 2
        place = (sample * frames_in + source).to(tl.int64) * length + pixel
        x_place = x_ptr + place[:, None] * CIN + k[None, :]
        w_place = weight_ptr + (tap * CIN + k[:, None]) * COUT + column[None, :]
        for start in range(0, CIN, BK):
            if EVEN:
                x = tl.load(x_place + start)
                w = tl.load(w_place + start * COUT)
            else:
                k_inside = start + k < CIN
                x = tl.load(x_place + start, mask=inside[:, None] & k_inside[None, :], other=0.0)
                w = tl.load(
                    w_place + start * COUT,
                    mask=k_inside[:, None] & (column < COUT)[None, :],
                    other=0.0,
                )
            total = tl.dot(x, w, total)
    bias = tl.load(bias_ptr + column, mask=column < COUT, other=0.0)
    total += bias[None, :]
    target = row.to(tl.int64)[:, None] * COUT + column[None, :]
    valid = inside[:, None] & (column < COUT)[None, :]
    if HAS_SKIP:
        total += tl.load(skip_ptr + target, mask=valid, other=0.0).to(tl.float32)
    rounded = total.to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + target, rounded, mask=valid)
    if MOMENTS:
        # Of what was stored, as the norm would read it.
        seen = tl.where(valid, rounded.to(tl.float32), 0.0)
        tile = (row_block * across + column_block).to(tl.int64) * 2
        tl.store(partial_ptr + tile, tl.sum(seen))
        tl.store(partial_ptr + tile + 1, tl.sum(seen * seen))


@triton.jit
def double(
    y_ptr, bias_ptr, out_ptr, height, width,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """Pixels from what was made of them: ``out[2i + a, 2j + b] = y[i + a, j + b, a, b] + bias``.

    y is (F, height + 1, width + 1, 2, 2, C) in memory, out (F, 2 height, 2 width, C).
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
    tl.store(out_ptr + place, y.to(out_ptr.dtype.element_ty), mask=inside)


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
