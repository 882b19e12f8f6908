"""The transformers between CNN and quantiser: the adaptive compressor and its inverse.

Neither is told the budget or the mask: dropped positions take part as the code 0 (facts D3, D4).

Shapes: B videos, C channels, T, H, W latent grid, N = T*H*W tokens in (t, h, w) raster order,
G heads of D channels, E = D/2 rotary pairs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infotok_core.attention import block_causal_attention
from infotok_core.config import TransformerConfig

__all__ = ["TransformerLayer", "rotary_tables", "run_stack"]


def rotary_tables(config: TransformerConfig) -> tuple[Tensor, Tensor]:
    """Turns of rows and of columns: ``[max_positions, pairs, 2]`` float32, cosine then sine.

    Even-numbered frequencies turn with the row, odd-numbered ones with the column; time has none.
    Cosines and not angles, because a cast of the network rounds them as it does the published one.
    """
    head_dim = config.hidden // config.heads
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim
    frequencies = 1.0 / config.theta**exponents
    positions = torch.arange(config.max_positions, dtype=torch.float32, device="cpu")
    rows, columns = positions.outer(frequencies[0::2]), positions.outer(frequencies[1::2])
    return _turns(rows), _turns(columns)


def _turns(angles: Tensor) -> Tensor:
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


def _rotate(x_BGND: Tensor, cos_NE: Tensor, sin_NE: Tensor) -> Tensor:
    pairs = x_BGND.float().unflatten(-1, (-1, 2))
    real, imaginary = pairs.unbind(-1)
    turned = torch.stack(
        [real * cos_NE - imaginary * sin_NE, real * sin_NE + imaginary * cos_NE], dim=-1
    )
    return turned.flatten(-2).to(x_BGND.dtype)


class _RMSNorm(nn.Module):
    def __init__(self, width: int, *, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x_BNC: Tensor) -> Tensor:
        wide = x_BNC.float()
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return normed.to(x_BNC.dtype) * self.weight.to(x_BNC.dtype)


class _Projections(nn.Module):
    """The parameters of a torch MultiheadAttention under its names; used directly."""

    def __init__(self, width: int, *, init_std: float) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width).normal_(std=init_std))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.normal_(self.out_proj.weight, std=init_std)
        nn.init.zeros_(self.out_proj.bias)


class _Attention(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.double_projection = config.double_projection
        self.mha = _Projections(config.hidden, init_std=config.init_std)

    def forward(self, x_BNC: Tensor, turns_NE2: Tensor, *, num_frames: int) -> Tensor:
        cos_NE, sin_NE = turns_NE2.unbind(-1)
        weight, bias = self.mha.in_proj_weight, self.mha.in_proj_bias
        q, k, v = F.linear(x_BNC, weight, bias).chunk(3, dim=-1)
        q, k = (self._join(_rotate(self._split(part), cos_NE, sin_NE)) for part in (q, k))
        if self.double_projection:
            q, k, v = (
                F.linear(part, w, b)
                for part, w, b in zip((q, k, v), weight.chunk(3), bias.chunk(3), strict=True)
            )
        y_BGND = block_causal_attention(
            self._split(q), self._split(k), self._split(v), num_frames=num_frames
        )
        return self.mha.out_proj(self._join(y_BGND))

    def _split(self, x_BNC: Tensor) -> Tensor:
        return x_BNC.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _join(self, x_BGND: Tensor) -> Tensor:
        return x_BGND.transpose(1, 2).flatten(2)


class _MLP(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.hidden, config.mlp_hidden, bias=False)
        self.w2 = nn.Linear(config.mlp_hidden, config.hidden, bias=False)
        self.w3 = nn.Linear(config.hidden, config.mlp_hidden, bias=False)
        for layer in (self.w1, self.w2, self.w3):
            nn.init.normal_(layer.weight, std=config.init_std)

    def forward(self, x_BNC: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x_BNC)) * self.w3(x_BNC))


class TransformerLayer(nn.Module):
    """Pre-norm attention over all earlier frames, then a gated MLP."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention_norm = _RMSNorm(config.hidden, eps=config.norm_eps)
        self.attention = _Attention(config)
        self.ffn_norm = _RMSNorm(config.hidden, eps=config.norm_eps)
        self.mlp = _MLP(config)

    def forward(self, x_BNC: Tensor, turns_NE2: Tensor, *, num_frames: int) -> Tensor:
        """Same shape; ``turns`` are cosine and sine of each position, float32."""
        x = x_BNC + self.attention(self.attention_norm(x_BNC), turns_NE2, num_frames=num_frames)
        return x + self.mlp(self.ffn_norm(x))


def run_stack(
    layers: nn.ModuleList,
    x_BCTHW: Tensor,
    *,
    temporal_embed_TC: Tensor,
    row_turns: Tensor,
    column_turns: Tensor,
) -> Tensor:
    """Run a stack over a latent grid.

    Args:
        layers: `TransformerLayer` each.
        x_BCTHW: The latent, already of the stack's width.
        temporal_embed_TC: One learned row for each latent frame, added before the first layer.
        row_turns: First of `rotary_tables`.
        column_turns: Second of `rotary_tables`.

    Raises:
        ValueError: If the grid is larger than the embeddings reach.
    """
    _, _, t, height, width = x_BCTHW.shape
    if t > temporal_embed_TC.shape[0] or max(height, width) > row_turns.shape[0]:
        raise ValueError(
            f"latent grid {t}x{height}x{width} exceeds {temporal_embed_TC.shape[0]} frames of "
            f"{row_turns.shape[0]} rows and columns"
        )
    turns_HWE = torch.cat(
        [
            row_turns[:height, None].expand(-1, width, -1, -1),
            column_turns[None, :width].expand(height, -1, -1, -1),
        ],
        dim=2,
    )
    turns_NE2 = turns_HWE.flatten(0, 1).repeat(t, 1, 1).float()
    embed_TC = temporal_embed_TC[:t].to(x_BCTHW.dtype)
    x_BNC = x_BCTHW.flatten(3).permute(0, 2, 3, 1).add(embed_TC[None, :, None]).flatten(1, 2)
    for layer in layers:
        x_BNC = layer(x_BNC, turns_NE2, num_frames=t)
    return x_BNC.unflatten(1, (t, height, width)).permute(0, 4, 1, 2, 3)
