"""Triton kernels between pixels and patches; imported only where Triton is.

The plain network makes a dozen passes over float32 videos there, which a fast one would wait for.
Shapes: B videos, T frames, H rows, W columns, 3 colours; a patch has K = P**3 samples and as many
sub-bands; t, h, w the grid of patches or of tokens.
"""

# pyright: basic, reportMissingImports=false

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["information", "patch", "to_float", "unpatch"]


@triton.jit
def to_float(x_ptr, table_ptr, out_ptr, number, BM: tl.constexpr):
    """``out = table[x]`` of bytes: the same float32 as the plain path's arithmetic gives."""
    place = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    byte = tl.load(x_ptr + place, mask=place < number, other=0)
    tl.store(out_ptr + place, tl.load(table_ptr + byte.to(tl.int32)), mask=place < number)


@triton.jit
def _sample(k, row, first_column, column, t, P: tl.constexpr):
    """(frame, row, column) of sample ``k``; frames before the first are the first."""
    frame = t * P + k // (P * P) - (P - 1)
    return frame, row * P + k // P % P, (first_column + column) * P + k % P


@triton.jit
def patch(
    video_ptr, matrix_ptr, out_ptr, t, h, w, of_sample, of_colour, of_frame, of_row, of_column,
    P: tl.constexpr, K: tl.constexpr, PADDED: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """`patching.patch`: out (B, t, h, w, K, 3) from a float32 video of any strides."""
    first = tl.program_id(0) * BM
    row, plane = tl.program_id(1), tl.program_id(2)
    column, k, band = tl.arange(0, BM), tl.arange(0, PADDED), tl.arange(0, PADDED)
    inside = (first + column < w)[:, None] & (k < K)[None, :]
    frame, y, x = _sample(k[None, :], row, first, column[:, None], plane % t, P)
    place = tl.maximum(frame, 0) * of_frame + y * of_row + x * of_column
    place += (plane // t).to(tl.int64) * of_sample
    square = (k < K)[:, None] & (band < K)[None, :]
    matrix = tl.load(matrix_ptr + band[None, :] * K + k[:, None], mask=square, other=0.0)
    target = ((plane.to(tl.int64) * h + row) * w + first + column) * (3 * K)
    for colour in tl.static_range(3):
        samples = tl.load(video_ptr + place + colour * of_colour, mask=inside, other=0.0)
        bands = tl.dot(samples, matrix, input_precision="ieee")
        tl.store(
            out_ptr + target[:, None] + band[None, :] * 3 + colour,
            bands.to(out_ptr.dtype.element_ty),
            mask=inside,
        )


@triton.jit
def unpatch(
    bands_ptr, matrix_ptr, out_ptr, t, h, w, frames,
    P: tl.constexpr, K: tl.constexpr, PADDED: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """`patching.unpatch`: out (B, 3, T, H, W) float32 from (B, t, h, w, K, 3)."""
    first = tl.program_id(0) * BM
    row, plane = tl.program_id(1), tl.program_id(2)
    column, k, band = tl.arange(0, BM), tl.arange(0, PADDED), tl.arange(0, PADDED)
    inside = (first + column < w)[:, None] & (k < K)[None, :]
    source = ((plane.to(tl.int64) * h + row) * w + first + column) * (3 * K)
    square = (band < K)[:, None] & (k < K)[None, :]
    matrix = tl.load(matrix_ptr + band[:, None] * K + k[None, :], mask=square, other=0.0) * K
    frame, y, x = _sample(k[None, :], row, first, column[:, None], plane % t, P)
    place = (frame * h * P + y) * w * P + x
    for colour in tl.static_range(3):
        bands = tl.load(
            bands_ptr + source[:, None] + band[None, :] * 3 + colour, mask=inside, other=0.0
        ).to(tl.float32)
        samples = tl.dot(bands, matrix, input_precision="ieee")
        of_colour = ((plane // t).to(tl.int64) * 3 + colour) * frames * h * P * w * P
        tl.store(out_ptr + of_colour + place, samples, mask=inside & (frame >= 0))


@triton.jit
def information(
    video_ptr, shown_ptr, out_ptr, frames, t, h, w,
    of_sample, of_colour, of_frame, of_row, of_column,
    TEMPORAL: tl.constexpr, SPATIAL: tl.constexpr, PIXELS: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """`information.token_information`, out (B, t, h, w); the video has any strides.

    BM tokens a program; PIXELS: SPATIAL**2, or the power of two above it.
    """
    token = tl.program_id(0) * BM + tl.arange(0, BM)
    row, plane = tl.program_id(1), tl.program_id(2)
    cell, sample = plane % t, (plane // t).to(tl.int64)
    pixel = tl.arange(0, PIXELS)
    inside = (token < w)[:, None] & (pixel < SPATIAL * SPATIAL)[None, :]
    y = row * SPATIAL + (pixel // SPATIAL)[None, :]
    x = token[:, None] * SPATIAL + (pixel % SPATIAL)[None, :]
    # The cell of latent frame 0 is frame 0 alone.
    first = tl.where(cell == 0, 0, (cell - 1) * TEMPORAL + 1)
    count = tl.where(cell == 0, 1, TEMPORAL)
    total = tl.zeros((BM, PIXELS), tl.float32)
    for step in range(3 * TEMPORAL):
        frame, colour = first + step // 3, step % 3
        there = inside & (step < 3 * count)
        place = sample * of_sample + colour * of_colour + frame * of_frame
        wanted = tl.load(video_ptr + place + y * of_row + x * of_column, mask=there, other=0.0).to(
            tl.float32
        )
        place = ((sample * 3 + colour) * frames + frame) * h * SPATIAL
        shown = tl.load(shown_ptr + (place + y) * w * SPATIAL + x, mask=there, other=0.0)
        total += tl.abs(wanted - shown.to(tl.float32))
    mean = tl.sum(total, 1) / (3 * SPATIAL * SPATIAL * count)
    tl.store(out_ptr + (plane.to(tl.int64) * h + row) * w + token, mean, mask=token < w)
