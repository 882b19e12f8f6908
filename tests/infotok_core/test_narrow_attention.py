"""Attention for heads of 8 against float64, on a GPU."""

from __future__ import annotations

import math

import pytest
import torch

from infotok_core.fast import narrow_attention

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]


def packed(batch: int, heads: int, tokens: int, *, spread: float, seed: int = 0) -> torch.Tensor:
    """Queries, keys and values; the larger ``spread``, the fewer keys a query attends to."""
    generator = torch.Generator(device="cuda").manual_seed(seed)
    parts = torch.randn(
        (3, batch, heads, tokens, narrow_attention.HEAD), device="cuda", generator=generator
    )
    parts[0] *= spread * math.log2(math.e) / math.sqrt(narrow_attention.HEAD)
    parts[1] *= spread
    return parts.half()


def attended(parts: torch.Tensor, frames: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    _, batch, heads, tokens, head = parts.shape
    out = torch.full((batch, tokens, heads * head), math.nan, dtype=dtype, device="cuda")
    q, k, v = parts
    balanced = torch.stack([q * narrow_attention.BALANCE, k / narrow_attention.BALANCE, v])
    narrow_attention.attend(balanced, out, num_frames=frames)
    return out


def wanted(parts: torch.Tensor, frames: int) -> torch.Tensor:
    q, k, v = parts.double()
    length = q.shape[2] // frames
    rows = []
    for frame in range(frames):
        seen = slice(0, (frame + 1) * length)
        score = q[:, :, frame * length : seen.stop] @ k[:, :, seen].mT * math.log(2)
        rows.append(score.softmax(-1) @ v[:, :, seen])
    return torch.cat(rows, 2).transpose(1, 2).flatten(2)


def relative(found: torch.Tensor, right: torch.Tensor) -> float:
    return float((found.double() - right).norm() / right.norm())


@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0, 8.0])
@pytest.mark.parametrize("length", [1, 7, 32, 100, 128, 300, 1024, 1620])
def test_narrow_heads_attend_as_in_float64(length: int, spread: float):
    parts = packed(2, 3, 3 * length, spread=spread)
    assert relative(attended(parts, 3), wanted(parts, 3)) < 1.5e-3
    assert relative(attended(parts, 3, torch.bfloat16), wanted(parts, 3)) < 3e-3


@pytest.mark.parametrize("later", [1.0, -1.0])
def test_scores_that_keep_growing_or_falling_lose_no_weight(later: float):
    parts = packed(1, 2, 3000, spread=0.5)
    # Every key points along one axis, farther and farther: scores from 0 to some 300 of base 2.
    parts[1, ..., 0] = later * torch.linspace(0, 60, 3000, device="cuda").half()
    parts[0, ..., 0] = 5.0
    assert relative(attended(parts, 3), wanted(parts, 3)) < 1.5e-3


@pytest.mark.parametrize("scale", [1 / 256, 256])
def test_small_queries_of_large_keys_lose_no_bits_nor_do_large_ones_of_small(scale: float):
    parts = packed(1, 2, 3000, spread=1.0)
    parts[0] *= scale
    parts[1] /= scale
    assert relative(attended(parts, 3), wanted(parts, 3)) < 1.5e-3


def test_one_key_far_above_all_others_is_all_that_is_seen():
    parts = packed(1, 1, 1024, spread=1.0)
    parts[0, ..., 0] = 4.0
    parts[1, ..., 777, 0] = 40.0
    found = attended(parts, 1)[0]
    assert torch.allclose(found, parts[2, 0, 0, 777].expand_as(found), atol=2e-3)


def test_a_sample_s_result_is_the_same_in_any_batch_and_every_time():
    parts = packed(4, 2, 2 * 500, spread=1.0)
    together = attended(parts, 2)
    assert torch.equal(attended(parts, 2), together)
    assert torch.equal(attended(parts[:, 2:3].contiguous(), 2), together[2:3])


def test_queries_too_large_for_float16_show():
    parts = packed(1, 1, 256, spread=1.0)
    parts[0, 0, 0, 3, 0] = 1.1 * torch.finfo(torch.float16).max / narrow_attention.BALANCE
    found = attended(parts, 1)
    assert found[0, 3].isnan().all()
    assert not found[0, 4:].isnan().any()


def test_values_that_are_not_finite_show():
    parts = packed(1, 1, 256, spread=1.0)
    parts[2, 0, 0, 3, 0] = math.nan
    assert attended(parts, 1).isnan().any()
