"""Triton kernels of the fast path; imported only where Triton is.

Nothing is summed by atomics and no block size depends on a measurement: a result repeats bit for
bit, in any process, and a sample's does not depend on the batch around it.
"""

# pyright: basic, reportMissingImports=false

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["attend", "causal_conv", "rotate"]


@triton.jit
def causal_conv(
    x_ptr, weight_ptr, bias_ptr, skip_ptr, out_ptr, rows, frames, length,
    CIN: tl.constexpr, COUT: tl.constexpr, HAS_SKIP: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Three taps in time: ``out[t] = sum_k W[k] x[max(t - 2 + k, 0)] + bias (+ skip[t])``.

    A matrix product whose left side is read from three frames; x, skip and out are (B, T, L, C) in
    memory, the weight is (3, CIN, COUT), rows = B * T * L.
    """
    # Blocks of one column of tiles share the weight, those of GROUP rows the input: both stay in L2.
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
    frame = (row // length) % frames
    k = tl.arange(0, BK)
    total = tl.zeros((BM, BN), tl.float32)
    for tap in range(3):
        back = tl.minimum(frame, 2 - tap)
        source = (row - back * length).to(tl.int64) * CIN
        x_place = x_ptr + source[:, None] + k[None, :]
        w_place = weight_ptr + (tap * CIN + k[:, None]) * COUT + column[None, :]
        for start in range(0, CIN, BK):
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
    place = row.to(tl.int64)[:, None] * COUT + column[None, :]
    valid = inside[:, None] & (column < COUT)[None, :]
    if HAS_SKIP:
        total += tl.load(skip_ptr + place, mask=valid, other=0.0).to(tl.float32)
    tl.store(out_ptr + place, total.to(out_ptr.dtype.element_ty), mask=valid)


@triton.jit
def rotate(
    qkv_ptr, turns_ptr, out_ptr, rows, length, WIDTH: tl.constexpr, HEAD: tl.constexpr,
    STRIDE: tl.constexpr, PAIRS: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """Turn pairs of q and k: ``out[2, rows, WIDTH]`` from the first two thirds of ``qkv``.

    ``turns`` is float32 ``[length, HEAD / 2, 2]``, cosine then sine; row r stands at position
    r modulo length. PAIRS: WIDTH / 2, or the power of two above it.
    """
    which = tl.program_id(1)
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    pair = tl.arange(0, PAIRS)
    inside = (row < rows)[:, None] & (pair < WIDTH // 2)[None, :]
    place = row.to(tl.int64)[:, None] * STRIDE + which * WIDTH + 2 * pair[None, :]
    real = tl.load(qkv_ptr + place, mask=inside, other=0.0).to(tl.float32)
    imaginary = tl.load(qkv_ptr + place + 1, mask=inside, other=0.0).to(tl.float32)
    turn = ((row % length)[:, None] * (HEAD // 2) + (pair % (HEAD // 2))[None, :]) * 2
    cosine = tl.load(turns_ptr + turn, mask=inside, other=0.0)
    sine = tl.load(turns_ptr + turn + 1, mask=inside, other=0.0)
    target = (which * rows + row).to(tl.int64)[:, None] * WIDTH + 2 * pair[None, :]
    kind = out_ptr.dtype.element_ty
    tl.store(out_ptr + target, (real * cosine - imaginary * sine).to(kind), mask=inside)
    tl.store(out_ptr + target + 1, (real * sine + imaginary * cosine).to(kind), mask=inside)


@triton.jit
def _exp2(x, PAIRS: tl.constexpr):
    """2 to the x as float16: two at a time where the hardware does that."""
    if PAIRS:
        return tl.inline_asm_elementwise(
            "ex2.approx.ftz.f16x2 $0, $1;",
            "=r,r",
            [x.to(tl.float16)],
            dtype=tl.float16,
            is_pure=True,
            pack=2,
        )
    return tl.exp2(x).to(tl.float16)


@triton.jit
def attend(
    q_ptr, k_ptr, v_ptr, out_ptr, length, tokens, scale,
    heads: tl.constexpr, HEAD: tl.constexpr, PAD: tl.constexpr,
    QK_STRIDE: tl.constexpr, V_STRIDE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    """Block-causal attention of BM queries of one frame over the frames up to their own.

    q, k: rows of QK_STRIDE; v: rows of V_STRIDE; out: rows of heads * HEAD. ``tokens`` rows a
    sample, ``length`` a frame. ``scale`` holds log2(e).

    Narrow heads leave room in the padded value: a column of ones there makes the tensor cores sum
    the weights, which else is the second most expensive part after the exponentials.
    """
    ones: tl.constexpr = HEAD < PAD
    blocks = tl.cdiv(length, BM)
    # The last frames have the most to do: they start first.
    program = tl.num_programs(0) - 1 - tl.program_id(0)
    frame, block = program // blocks, program % blocks
    sample, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    d = tl.arange(0, PAD)
    within = block * BM + tl.arange(0, BM)
    base = sample.to(tl.int64) * tokens
    query = base + frame * length + within
    q = tl.load(
        q_ptr + query[:, None] * QK_STRIDE + head * HEAD + d[None, :],
        mask=(within < length)[:, None] & (d < HEAD)[None, :],
        other=0.0,
    )
    most = tl.full((BM,), -1e30, tl.float32)
    total = tl.zeros((BM,), tl.float32)
    summed = tl.zeros((BM, PAD), tl.float32)
    end = (frame + 1) * length
    for start in range(0, end, BN):
        n = start + tl.arange(0, BN)
        key = base + n
        k = tl.load(
            k_ptr + key[None, :] * QK_STRIDE + head * HEAD + d[:, None],
            mask=(n < end)[None, :] & (d < HEAD)[:, None],
            other=0.0,
        )
        v = tl.load(
            v_ptr + key[:, None] * V_STRIDE + head * HEAD + d[None, :],
            mask=(n < end)[:, None] & (d < HEAD)[None, :],
            other=0.0,
        ).to(tl.float16)
        if ones:
            v = tl.where(d[None, :] == HEAD, 1.0, v).to(tl.float16)
        score = tl.dot(q, k) * scale
        score = tl.where((n < end)[None, :], score, -1e30)
        higher = tl.maximum(most, tl.max(score, 1))
        weight = _exp2(score - higher[:, None], PAIRS)
        shrink = tl.exp2(most - higher)
        if not ones:
            total = total * shrink + tl.sum(weight.to(tl.float32), 1)
        summed = tl.dot(weight, v, summed * shrink[:, None])
        most = higher
    if ones:
        total = tl.sum(tl.where(d[None, :] == HEAD, summed, 0.0), 1)
    y = summed / total[:, None]
    tl.store(
        out_ptr + query[:, None] * (heads * HEAD) + head * HEAD + d[None, :],
        y.to(out_ptr.dtype.element_ty),
        mask=(within < length)[:, None] & (d < HEAD)[None, :],
    )
