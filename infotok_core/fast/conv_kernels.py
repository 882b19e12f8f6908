"""Triton kernels of the convolution in time; imported only where Triton is.

Both compute ``out[t] = sum_k W[k] x[max(S t - 2 + k, 0)] + bias (+ skip[t])``, k = 0, 1, 2: a
matrix product whose left side is read from three frames. x is (B, frames_in, L, CIN) in memory,
skip and out are (B, frames, L, COUT), the weight is (3, CIN, COUT), rows = B * frames * L. They sum
in the same order, so they agree bit for bit, at any place of any batch.

Their options, which are part of the compiled kernel:

- STRIDE: S. REPEAT: as if every frame of x but the first stood there twice.
- HAS_SKIP: whether ``skip`` is added, in float32.
- MOMENTS: write sum and sum of squares of each tile of ``out`` too, as (B * frames, tiles, 2); L
  must be a multiple of BM.
- BM, BN, BK: tile of ``out`` and step of the sum. GROUP: rows of tiles that share the input in L2.
"""

# pyright: basic, reportMissingImports=false

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["causal_conv", "causal_conv_of_tiles"]


@triton.jit
def _place_of(tile, rows, BM: tl.constexpr, ACROSS: tl.constexpr, GROUP: tl.constexpr):
    """Row and column of a tile: those of one column share the weight, of GROUP rows the input."""
    down = tl.cdiv(rows, BM)
    first = tile // (GROUP * ACROSS) * GROUP
    height = tl.minimum(down - first, GROUP)
    within = tile % (GROUP * ACROSS)
    return first + within % height, within // height


@triton.jit
def _source(frame, tap, STRIDE: tl.constexpr, REPEAT: tl.constexpr):
    """The frame of x that a tap of an output frame meets."""
    source = tl.maximum(frame * STRIDE + tap - 2, 0)
    if REPEAT:
        source = (source + 1) // 2
    return source


@triton.jit
def _finish(
    total, row, column, inside, tile, bias_ptr, skip_ptr, out_ptr, partial_ptr,
    COUT: tl.constexpr, HAS_SKIP: tl.constexpr, MOMENTS: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """Bias, skip, rounding, and the moments of what is stored, as the norm would read it."""
    total += tl.load(bias_ptr + column, mask=column < COUT, other=0.0)[None, :]
    target = row.to(tl.int64)[:, None] * COUT + column[None, :]
    valid = inside[:, None] & (column < COUT)[None, :]
    if HAS_SKIP and EVEN:
        total += tl.load(skip_ptr + target).to(tl.float32)
    elif HAS_SKIP:
        total += tl.load(skip_ptr + target, mask=valid, other=0.0).to(tl.float32)
    rounded = total.to(out_ptr.dtype.element_ty)
    seen = rounded.to(tl.float32)
    if EVEN:
        tl.store(out_ptr + target, rounded)
    else:
        tl.store(out_ptr + target, rounded, mask=valid)
        seen = tl.where(valid, seen, 0.0)
    if MOMENTS:
        place = partial_ptr + 2 * tile.to(tl.int64)
        tl.store(place, tl.sum(seen))
        tl.store(place + 1, tl.sum(seen * seen))


@triton.jit
def causal_conv(
    x_ptr, weight_ptr, bias_ptr, skip_ptr, out_ptr, partial_ptr,
    rows, frames, frames_in, length,
    CIN: tl.constexpr, COUT: tl.constexpr, HAS_SKIP: tl.constexpr, MOMENTS: tl.constexpr,
    STRIDE: tl.constexpr, REPEAT: tl.constexpr, EVEN: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """For any shape: a tile may reach over frames and over the borders; one program a tile.

    EVEN: no tile does reach over a border, in all three directions.
    """
    across: tl.constexpr = (COUT + BN - 1) // BN
    row_block, column_block = _place_of(tl.program_id(0), rows, BM, across, GROUP)
    row = row_block * BM + tl.arange(0, BM)
    column = column_block * BN + tl.arange(0, BN)
    inside = row < rows
    frame = (row // length) % frames
    sample = (row // length) // frames
    k = tl.arange(0, BK)
    total = tl.zeros((BM, BN), tl.float32)
    for tap in range(3):
        source = sample * frames_in + _source(frame, tap, STRIDE, REPEAT)
        place = source.to(tl.int64) * length + row % length
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
    _finish(
        total, row, column, inside, row_block * across + column_block,
        bias_ptr, skip_ptr, out_ptr, partial_ptr, COUT, HAS_SKIP, MOMENTS, EVEN,
    )  # fmt: skip


@triton.jit
def causal_conv_of_tiles(
    x_tiles, weight_tiles, bias_ptr, skip_ptr, out_ptr, partial_ptr,
    rows, frames, frames_in, length,
    CIN: tl.constexpr, COUT: tl.constexpr, HAS_SKIP: tl.constexpr, MOMENTS: tl.constexpr,
    STRIDE: tl.constexpr, REPEAT: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
    PROGRAMS: tl.constexpr,
):  # fmt: skip
    """For Hopper and its like, where BM divides L, BN divides COUT and BK divides CIN.

    Tiles of x and of the weight come by bulk copies (tensor descriptors of rows of CIN and COUT
    values, in blocks of BM x BK and BK x BN). Each of the PROGRAMS makes many tiles, in one flat
    loop over all steps of all of them: the next tile's copies are on their way while one is
    written.
    """
    across: tl.constexpr = COUT // BN
    steps: tl.constexpr = CIN // BK
    for tile in tl.range(tl.program_id(0), rows // BM * across, PROGRAMS, flatten=True):
        row_block, column_block = _place_of(tile, rows, BM, across, GROUP)
        first = row_block * BM
        frame = (first // length) % frames
        sample = (first // length) // frames
        total = tl.zeros((BM, BN), tl.float32)
        for step in range(3 * steps):
            source = sample * frames_in + _source(frame, step // steps, STRIDE, REPEAT)
            x = x_tiles.load([source * length + first % length, step % steps * BK])
            w = weight_tiles.load([step * BK, column_block * BN])
            total = tl.dot(x, w, total)
        row = first + tl.arange(0, BM)
        column = column_block * BN + tl.arange(0, BN)
        _finish(
            total, row, column, row < rows, row_block * across + column_block,
            bias_ptr, skip_ptr, out_ptr, partial_ptr, COUT, HAS_SKIP, MOMENTS, True,
        )  # fmt: skip
