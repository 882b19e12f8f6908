"""The transformer's layer with prepared weights, in the place of the plain one.

The value's two projections are one, exactly; matrices are rounded to the path's precision once.

Shapes: B windows, N tokens, C channels, E rotary pairs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infotok_core.compressor import TransformerLayer
from infotok_core.fast import ops

__all__ = ["FastTransformerLayer"]


class FastTransformerLayer(nn.Module):
    """`TransformerLayer`: rotation, attention and gate by our kernels, on tokens as they lie."""

    def __init__(self, layer: TransformerLayer, dtype: torch.dtype) -> None:
        super().__init__()
        attention = layer.attention
        self.heads = attention.heads
        self.double_projection = attention.double_projection
        self.attention_norm, self.ffn_norm = layer.attention_norm, layer.ffn_norm
        self.out_proj = attention.mha.out_proj
        weight = attention.mha.in_proj_weight.detach()
        bias = attention.mha.in_proj_bias.detach()
        first_weight, first_bias = weight.clone(), bias.clone()
        second_bias_2C = torch.zeros_like(bias).view(3, -1)[:2]
        if self.double_projection:
            value, shift = weight.chunk(3)[2].double(), bias.chunk(3)[2].double()
            first_weight.chunk(3)[2].copy_(value @ value)
            first_bias.chunk(3)[2].copy_(value @ shift + shift)
            second_bias_2C = bias.view(3, -1)[:2]
        self.register_buffer("weight", first_weight.to(dtype))
        self.register_buffer("bias", first_bias.to(dtype))
        # Of q and k, to be multiplied from the right: [2, C, C].
        again = weight.unflatten(0, (3, -1))[:2].transpose(1, 2).contiguous()
        self.register_buffer("weight_again", again.to(dtype))
        self.register_buffer("bias_again", second_bias_2C.float().contiguous())
        wide = torch.cat([layer.mlp.w1.weight, layer.mlp.w3.weight]).detach()
        self.register_buffer("wide", wide.to(dtype))
        self.register_buffer("narrow", layer.mlp.w2.weight.detach().T.to(dtype))

    weight: Tensor
    bias: Tensor
    weight_again: Tensor
    bias_again: Tensor
    wide: Tensor
    narrow: Tensor

    def forward(self, x_BNC: Tensor, turns_NE2: Tensor, *, num_frames: int) -> Tensor:
        """Same shape.

        Args:
            x_BNC: Tokens.
            turns_NE2: float32, cosine then sine.
            num_frames: Latent frames in the sequence.
        """
        first, second = self.attention_norm, self.ffn_norm
        x_BNC = x_BNC.contiguous()
        normed_BNC = ops.norm(x_BNC, first.weight, eps=first.eps)
        qkv_BNC = F.linear(normed_BNC, self.weight, self.bias)
        y_BNC = ops.attend(
            qkv_BNC,
            turns_NE2,
            self.weight_again if self.double_projection else None,
            self.bias_again,
            heads=self.heads,
            num_frames=num_frames,
        )
        x_BNC, normed_BNC = ops.add_norm(x_BNC, self.out_proj(y_BNC), second.weight, eps=second.eps)
        hidden = ops.gate(F.linear(normed_BNC, self.wide))
        x_BNC.flatten(0, 1).addmm_(hidden.flatten(0, 1), self.narrow)
        return x_BNC
