"""The Triton kernels of `infotok_core.fused`; imported only where Triton is.

A program handles one chunk of one frame: TILES tiles of ROWS pixels by WIDTH channels. Sums go to
a partial result per chunk, never to atomics, so a result repeats bit for bit.
"""

# pyright: basic, reportMissingImports=false

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["apply", "apply_grad", "moments", "reduce_grad"]


@triton.jit
def _tile(tile, length, channels, ROWS: tl.constexpr, WIDTH: tl.constexpr, TILES: tl.constexpr):
    row = (tl.program_id(1) * TILES + tile) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    inside = (row[:, None] < length) & (column[None, :] < channels)
    frame = tl.program_id(0).to(tl.int64) * length * channels
    return frame + row[:, None] * channels + column[None, :], inside


@triton.jit
def moments(
    x_ptr, out_ptr, length, channels,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, TILES: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """Sum and sum of squares of each chunk."""
    total = tl.zeros((ROWS, WIDTH), tl.float32)
    squares = tl.zeros((ROWS, WIDTH), tl.float32)
    for tile in range(TILES):
        place, inside = _tile(tile, length, channels, ROWS, WIDTH, TILES)
        x = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
        total += x
        squares += x * x
    chunk = (tl.program_id(0) * CHUNKS + tl.program_id(1)) * 2
    tl.store(out_ptr + chunk, tl.sum(total))
    tl.store(out_ptr + chunk + 1, tl.sum(squares))


@triton.jit
def _statistics(sums_ptr, length, channels, eps):
    frame = tl.program_id(0) * 2
    count = (length * channels).to(tl.float32)
    mean = tl.load(sums_ptr + frame) / count
    variance = tl.load(sums_ptr + frame + 1) / count - mean * mean
    return mean, 1.0 / tl.sqrt(tl.maximum(variance, 0.0) + eps)


@triton.jit
def _affine(weight_ptr, bias_ptr, channels, WIDTH: tl.constexpr):
    column = tl.arange(0, WIDTH)
    weight = tl.load(weight_ptr + column, mask=column < channels, other=0.0)
    bias = tl.load(bias_ptr + column, mask=column < channels, other=0.0)
    return weight[None, :], bias[None, :]


@triton.jit
def apply(
    x_ptr, sums_ptr, weight_ptr, bias_ptr, y_ptr, length, channels, eps, SILU: tl.constexpr,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, TILES: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """The output, from the sums of a frame."""
    mean, scale = _statistics(sums_ptr, length, channels, eps)
    weight, bias = _affine(weight_ptr, bias_ptr, channels, WIDTH)
    for tile in range(TILES):
        place, inside = _tile(tile, length, channels, ROWS, WIDTH, TILES)
        x = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
        z = (x - mean) * scale * weight + bias
        y = z * tl.sigmoid(z) if SILU else z
        tl.store(y_ptr + place, y.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _local_grad(
    x_ptr, grad_ptr, place, inside, mean, scale, weight, bias, SILU: tl.constexpr
):  # fmt: skip
    x = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
    grad = tl.load(grad_ptr + place, mask=inside, other=0.0).to(tl.float32)
    normed = tl.where(inside, (x - mean) * scale, 0.0)
    if SILU:
        z = normed * weight + bias
        sigmoid = tl.sigmoid(z)
        grad = grad * sigmoid * (1.0 + z * (1.0 - sigmoid))
    return normed, grad


@triton.jit
def reduce_grad(
    x_ptr, sums_ptr, weight_ptr, bias_ptr, grad_ptr, partial_ptr, parameters_ptr,
    length, channels, eps, SILU: tl.constexpr,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, TILES: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """Each chunk's share of the gradients of weight and bias, and of what dx needs of its frame."""
    mean, scale = _statistics(sums_ptr, length, channels, eps)
    weight, bias = _affine(weight_ptr, bias_ptr, channels, WIDTH)
    grad_weight = tl.zeros((ROWS, WIDTH), tl.float32)
    grad_bias = tl.zeros((ROWS, WIDTH), tl.float32)
    for tile in range(TILES):
        place, inside = _tile(tile, length, channels, ROWS, WIDTH, TILES)
        normed, grad = _local_grad(
            x_ptr, grad_ptr, place, inside, mean, scale, weight, bias, SILU
        )  # fmt: skip
        grad_weight += grad * normed
        grad_bias += grad
    chunk = tl.program_id(0) * CHUNKS + tl.program_id(1)
    by_weight, by_bias = tl.sum(grad_weight, axis=0), tl.sum(grad_bias, axis=0)
    column = tl.arange(0, WIDTH)
    valid = column < channels
    tl.store(parameters_ptr + chunk * 2 * channels + column, by_weight, mask=valid)
    tl.store(parameters_ptr + (chunk * 2 + 1) * channels + column, by_bias, mask=valid)
    row_weight = tl.load(weight_ptr + column, mask=valid, other=0.0)
    tl.store(partial_ptr + chunk * 2, tl.sum(by_bias * row_weight))
    tl.store(partial_ptr + chunk * 2 + 1, tl.sum(by_weight * row_weight))


@triton.jit
def apply_grad(
    x_ptr, sums_ptr, weight_ptr, bias_ptr, grad_ptr, reduced_ptr, out_ptr,
    length, channels, eps, SILU: tl.constexpr,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, TILES: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """The gradient of the input."""
    mean, scale = _statistics(sums_ptr, length, channels, eps)
    weight, bias = _affine(weight_ptr, bias_ptr, channels, WIDTH)
    count = (length * channels).to(tl.float32)
    by_mean = tl.load(reduced_ptr + tl.program_id(0) * 2) / count
    by_scale = tl.load(reduced_ptr + tl.program_id(0) * 2 + 1) / count
    for tile in range(TILES):
        place, inside = _tile(tile, length, channels, ROWS, WIDTH, TILES)
        normed, grad = _local_grad(
            x_ptr, grad_ptr, place, inside, mean, scale, weight, bias, SILU
        )  # fmt: skip
        dx = scale * (grad * weight - by_mean - normed * by_scale)
        tl.store(out_ptr + place, dx.to(out_ptr.dtype.element_ty), mask=inside)
