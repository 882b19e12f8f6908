"""Triton kernels of the fast path; imported only where Triton is.

Nothing is summed by atomics and no block size depends on a measurement: a result repeats bit for
bit, in any process, and a sample's does not depend on the batch around it.
"""

# pyright: basic, reportMissingImports=false

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["attend", "causal_conv", "double", "gate", "pack", "rotate"]


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
def pack(
    q_ptr, k_ptr, v_ptr, q_bias_ptr, k_bias_ptr, out_ptr, rows, tokens, q_scale, k_scale,
    QK_STRIDE: tl.constexpr, V_STRIDE: tl.constexpr, heads: tl.constexpr, HEAD: tl.constexpr,
    PAD: tl.constexpr, WIDTH: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """Heads apart, as `attend` wants them: ``out[3, B, heads, tokens, PAD]`` float16.

    q and k are ``(x + bias) * scale``. WIDTH: heads * PAD, or the power of two above.
    A value narrower than PAD is followed by a 1, everything else by zeros.
    """
    which = tl.program_id(1)
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    column = tl.arange(0, WIDTH)
    head, d = column // PAD, column % PAD
    channel = head * HEAD + d
    inside = (row < rows)[:, None] & ((column < heads * PAD) & (d < HEAD))[None, :]
    if which == 0:
        x = tl.load(
            q_ptr + row.to(tl.int64)[:, None] * QK_STRIDE + channel[None, :], mask=inside, other=0.0
        ).to(tl.float32)
        bias = tl.load(q_bias_ptr + channel, mask=(d < HEAD) & (head < heads), other=0.0)
        y = (x + bias.to(tl.float32)[None, :]) * q_scale
    elif which == 1:
        x = tl.load(
            k_ptr + row.to(tl.int64)[:, None] * QK_STRIDE + channel[None, :], mask=inside, other=0.0
        ).to(tl.float32)
        bias = tl.load(k_bias_ptr + channel, mask=(d < HEAD) & (head < heads), other=0.0)
        y = (x + bias.to(tl.float32)[None, :]) * k_scale
    else:
        x = tl.load(
            v_ptr + row.to(tl.int64)[:, None] * V_STRIDE + channel[None, :], mask=inside, other=0.0
        ).to(tl.float32)
        y = tl.where((d == HEAD)[None, :], 1.0, x)
    sample, token = row // tokens, row % tokens
    plane = (which * (rows // tokens) + sample).to(tl.int64)[:, None] * heads + head[None, :]
    place = (plane * tokens + token[:, None]) * PAD + d[None, :]
    tl.store(
        out_ptr + place, y.to(tl.float16), mask=(row < rows)[:, None] & (head < heads)[None, :]
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
