"""Triton kernels of attention; imported only where Triton is."""

# pyright: basic, reportMissingImports=false

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["attend", "attend_in_time", "pack", "softmax"]


@triton.jit
def _turned(x_place, mask, cosine, sine, BM: tl.constexpr, BK: tl.constexpr):
    """Pairs of x turned, rounded as x is."""
    x = tl.load(x_place, mask=mask, other=0.0)
    real, imaginary = tl.split(tl.reshape(x.to(tl.float32), (BM, BK // 2, 2)))
    pairs = tl.join(real * cosine - imaginary * sine, real * sine + imaginary * cosine)
    return tl.reshape(pairs, (BM, BK)).to(x.dtype)


@triton.jit
def pack(
    qkv_ptr, turns_ptr, weight_ptr, bias_ptr, out_ptr, rows, tokens, q_scale, k_scale,
    HEADS: tl.constexpr, HEAD: tl.constexpr, PAD: tl.constexpr, AGAIN: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """What `attend` wants, of what the first projection gave: ``out[3, B, HEADS, tokens, PAD]``.

    q and k are turned, projected again if AGAIN, and ``(x + bias) * scale``; out is float16. A
    value narrower than PAD is followed by a 1, everything else by zeros.

    qkv is (rows, 3, C) in memory, C = HEADS * HEAD; turns are float32 (tokens, HEAD / 2, 2), cosine
    then sine; the weight is (2, C, C), the bias float32 (2, C). Columns are those of padded heads,
    and BN and BK multiples of PAD, so one block of turns serves every step of BK.
    """
    CHANNELS: tl.constexpr = HEADS * HEAD
    across = tl.cdiv(HEADS * PAD, BN)
    # Programs of one row block are neighbours: some multiply while others copy values.
    part = tl.program_id(0) % (3 * across)
    which = part // across
    row = tl.program_id(0) // (3 * across) * BM + tl.arange(0, BM)
    row_inside = (row < rows)[:, None]
    column = part % across * BN + tl.arange(0, BN)
    d = column % PAD
    channel = column // PAD * HEAD + d
    column_inside = (column < HEADS * PAD) & (d < HEAD)
    x_row = qkv_ptr + row.to(tl.int64)[:, None] * (3 * CHANNELS) + which * CHANNELS
    if which == 2:
        x = tl.load(x_row + channel[None, :], mask=row_inside & column_inside[None, :], other=0.0)
        y = tl.where((d == HEAD)[None, :], 1.0, x.to(tl.float32))
    else:
        k = tl.arange(0, BK)
        k_d = k % PAD
        turns = tl.load(
            turns_ptr + (row % tokens)[:, None] * HEAD + k_d[None, :],
            mask=row_inside & (k_d < HEAD)[None, :],
            other=0.0,
        )
        cosine, sine = tl.split(tl.reshape(turns, (BM, BK // 2, 2)))
        if AGAIN:
            y = tl.zeros((BM, BN), tl.float32)
            for start in range(0, HEADS * PAD, BK):
                k_channel = (start + k) // PAD * HEAD + k_d
                k_inside = (start + k < HEADS * PAD) & (k_d < HEAD)
                x = _turned(
                    x_row + k_channel[None, :], row_inside & k_inside[None, :], cosine, sine, BM, BK
                )
                w_place = which * CHANNELS * CHANNELS + k_channel[:, None] * CHANNELS
                w = tl.load(
                    weight_ptr + w_place + channel[None, :],
                    mask=k_inside[:, None] & column_inside[None, :],
                    other=0.0,
                )
                y = tl.dot(x, w, y)
        else:
            tl.static_assert(BN == BK)
            y = _turned(
                x_row + channel[None, :], row_inside & column_inside[None, :], cosine, sine, BM, BK
            )
        # As a product of the library rounds it.
        y = y.to(qkv_ptr.dtype.element_ty).to(tl.float32)
        bias = tl.load(bias_ptr + which * CHANNELS + channel, mask=column_inside, other=0.0)
        y = (y + bias[None, :]) * tl.where(which == 0, q_scale, k_scale)
    # A head of one token is all that lies together; Triton lets the threads of a warp write tokens
    # of one head then, as rows come first here.
    head = part % across * (BN // PAD) + tl.arange(0, BN // PAD)
    plane = (which * (rows // tokens) + row // tokens).to(tl.int64)[:, None] * HEADS + head[None, :]
    place = (plane * tokens + (row % tokens)[:, None]) * PAD
    inside = row_inside & (head < HEADS)[None, :]
    tl.store(
        out_ptr + place[:, :, None] + tl.arange(0, PAD)[None, None, :],
        tl.reshape(y.to(tl.float16), (BM, BN // PAD, PAD)),
        mask=inside[:, :, None],
    )


@triton.jit
def _exp2(x, PAIRS: tl.constexpr):
    """2 to the x as float16, without a conversion of its own where the hardware has halves."""
    if PAIRS:
        return tl.inline_asm_elementwise(
            "ex2.approx.f16x2 $0, $1;",
            "=r,r",
            [x.to(tl.float16)],
            dtype=tl.float16,
            is_pure=True,
            pack=2,
        )
    return tl.exp2(x).to(tl.float16)


@triton.jit
def _attend_to(
    q, k_ptr, v_ptr, base, start, end, most, total, summed,
    PAD: tl.constexpr, BN: tl.constexpr, ONES: tl.constexpr, TAIL: tl.constexpr,
    PAIRS: tl.constexpr,
):  # fmt: skip
    n = start + tl.arange(0, BN)
    d = tl.arange(0, PAD)
    if TAIL:
        k = tl.load(
            k_ptr + (base + n)[None, :] * PAD + d[:, None], mask=(n < end)[None, :], other=0.0
        )
        v = tl.load(
            v_ptr + (base + n)[:, None] * PAD + d[None, :], mask=(n < end)[:, None], other=0.0
        )
        score = tl.where((n < end)[None, :], tl.dot(q, k), -1e30)
    else:
        k = tl.load(k_ptr + (base + n)[None, :] * PAD + d[:, None])
        v = tl.load(v_ptr + (base + n)[:, None] * PAD + d[None, :])
        score = tl.dot(q, k)
    # Weights go up to 2^14, not to 1: small ones stay clear of float16's denormal numbers.
    higher = tl.maximum(most, tl.max(score, 1) - 14.0)
    shrink = tl.exp2(most - higher)
    weight = _exp2(score - higher[:, None], PAIRS)
    if not ONES:
        total = total * shrink + tl.sum(weight.to(tl.float32), 1)
    return higher, total, tl.dot(weight, v, summed * shrink[:, None])


@triton.jit
def attend(
    q_ptr, k_ptr, v_ptr, out_ptr, length, tokens,
    heads: tl.constexpr, HEAD: tl.constexpr, PAD: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    """Block-causal attention of BM queries of one frame over the frames up to their own.

    q, k, v: from `pack`; out: rows of heads * HEAD. ``tokens`` rows a sample, ``length`` a frame.

    Narrow heads leave room in the padded value: a column of ones there makes the tensor cores sum
    the weights. What bounds this kernel is the exponentials, 16 per cycle and multiprocessor.
    """
    ones: tl.constexpr = HEAD < PAD
    blocks = tl.cdiv(length, BM)
    # The last frames have the most to do: they start first.
    program = tl.num_programs(0) - 1 - tl.program_id(0)
    frame, block = program // blocks, program % blocks
    d = tl.arange(0, PAD)
    within = block * BM + tl.arange(0, BM)
    base = tl.program_id(1).to(tl.int64) * tokens
    inside = (within < length)[:, None]
    q_place = q_ptr + (base + frame * length + within)[:, None] * PAD + d[None, :]
    q = tl.load(q_place, mask=inside, other=0.0)
    most = tl.full((BM,), -1e30, tl.float32)
    total = tl.zeros((BM,), tl.float32)
    summed = tl.zeros((BM, PAD), tl.float32)
    end = (frame + 1) * length
    whole = end // BN * BN
    for start in range(0, whole, BN):
        most, total, summed = _attend_to(
            q, k_ptr, v_ptr, base, start, end, most, total, summed, PAD, BN, ones, False, PAIRS
        )
    if whole < end:
        most, total, summed = _attend_to(
            q, k_ptr, v_ptr, base, whole, end, most, total, summed, PAD, BN, ones, True, PAIRS
        )
    if ones:
        total = tl.sum(tl.where(d[None, :] == HEAD, summed, 0.0), 1)
    y = summed / total[:, None]
    sample, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    row = sample.to(tl.int64) * tokens + frame * length + within
    tl.store(
        out_ptr + row[:, None] * (heads * HEAD) + head * HEAD + d[None, :],
        y.to(out_ptr.dtype.element_ty),
        mask=inside & (d < HEAD)[None, :],
    )


@triton.jit
def softmax(score_ptr, out_ptr, length, scale, PADDED: tl.constexpr):
    """Of each row of float32 scores times a scale, rounded to what ``out`` is."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, PADDED)
    score = tl.load(score_ptr + row * length + column, mask=column < length, other=-float("inf"))
    weight = tl.exp((score - tl.max(score, 0)) * scale)
    weight = weight / tl.sum(weight, 0)
    place = out_ptr + row * length + column
    tl.store(place, weight.to(out_ptr.dtype.element_ty), mask=column < length)


@triton.jit
def attend_in_time(
    q_ptr, k_ptr, v_ptr, out_ptr, frames, length, scale,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, FRAMES: tl.constexpr,
):  # fmt: skip
    """Attention of a pixel to itself in its own and earlier frames; a program a pixel.

    q, k, v and out are (B, frames, length, WIDTH). FRAMES and PADDED: frames and WIDTH, or the
    powers of two above them, 16 at least.
    """
    pixel = tl.program_id(0)
    t, d = tl.arange(0, FRAMES), tl.arange(0, PADDED)
    first = (pixel // length).to(tl.int64) * frames * length + pixel % length
    place = (first + t * length)[:, None] * WIDTH + d[None, :]
    inside = (t < frames)[:, None] & (d < WIDTH)[None, :]
    q = tl.load(q_ptr + place, mask=inside, other=0.0)
    k = tl.load(k_ptr + place, mask=inside, other=0.0)
    v = tl.load(v_ptr + place, mask=inside, other=0.0)
    score = tl.dot(q, tl.trans(k)) * scale
    score = tl.where(t[None, :] <= t[:, None], score, -float("inf"))
    weight = tl.exp(score - tl.max(score, 1)[:, None])
    weight = weight / tl.sum(weight, 1)[:, None]
    y = tl.dot(weight.to(v.dtype), v)
    tl.store(out_ptr + place, y.to(out_ptr.dtype.element_ty), mask=inside)
