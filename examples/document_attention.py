"""Causal attention that never looks from one document of a context into another.

Two ways, the same numbers: torch's `scaled_dot_product_attention` under the whole mask, which is
quick where contexts are short or there is no GPU, and FlexAttention, which skips the blocks that no
document has and stores no mask of L * L.

Shapes: B batch, L items, A heads, E channels of a head.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

__all__ = ["Mask", "attend", "document_mask"]

Mask = Tensor | BlockMask | None
"""What may be looked at: bool [B, 1, L, L], blocks for FlexAttention, or everything."""


def document_mask(documents_BL: Tensor, *, flex: bool = False) -> Mask:
    """What each item may look at: itself and what lies before it in its document.

    Args:
        documents_BL: Number of the document of each item; padding is one of them.
        flex: For FlexAttention.
    """
    size, length = documents_BL.shape
    if not flex:
        causal = torch.ones(length, length, dtype=torch.bool, device=documents_BL.device).tril()
        return (documents_BL[:, None, :, None] == documents_BL[:, None, None, :]) & causal

    def seen(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) & (documents_BL[b, q] == documents_BL[b, k])

    return create_block_mask(seen, size, None, length, length, device=documents_BL.device)


def attend(q_BALE: Tensor, k_BALE: Tensor, v_BALE: Tensor, mask: Mask) -> Tensor:
    """Attention [B, A, L, E], in the type of the values."""
    q_BALE, k_BALE = q_BALE.to(v_BALE.dtype), k_BALE.to(v_BALE.dtype)
    if isinstance(mask, BlockMask):
        # All three have one type already; within, nothing may choose another.
        with torch.autocast(q_BALE.device.type, enabled=False):
            return _flex(q_BALE.is_cuda)(q_BALE, k_BALE, v_BALE, block_mask=mask)
    return F.scaled_dot_product_attention(q_BALE, k_BALE, v_BALE, attn_mask=mask)


@functools.cache
def _flex(on_gpu: bool) -> Callable[..., Any]:
    # Without its kernel it is right, too, but keeps the scores and cannot learn: for tests.
    return torch.compile(flex_attention, dynamic=False) if on_gpu else flex_attention
