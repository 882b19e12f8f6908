"""Finite scalar quantisation (Mentzer et al., arXiv:2309.15505): vectors to integers and back.

Shapes: B videos, C code channels (one for each level), T, H, W latent grid.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["FSQ", "Quantized"]

# Widens the bound a little beyond the outermost value, so that it can be reached.
_WIDENING = 1e-3


class Quantized(NamedTuple):
    """What a latent becomes."""

    codes_BCTHW: Tensor
    """float32 in [-1, 1]; the gradient passes straight through the rounding."""
    indices_BTHW: Tensor
    """int32 in [0, codebook size)."""


class FSQ(nn.Module):
    """Rounds each channel to one of its levels; an index is the mixed-radix number of the channels.

    The first channel is the least significant digit. Stateless: nothing of it is in a checkpoint.
    """

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.levels = levels
        self.basis = tuple(itertools.accumulate(levels[:-1], int.__mul__, initial=1))
        # Integers, so that casting the network to another precision cannot round them, and made on
        # the CPU even inside `torch.device("meta")`: a load fills parameters, not these.
        self._constant("radix", levels)
        self._constant("weights", self.basis)

    def _constant(self, name: str, values: tuple[int, ...]) -> None:
        column = torch.tensor(values, dtype=torch.int64, device="cpu").view(-1, 1, 1, 1)
        self.register_buffer(name, column, persistent=False)

    radix: Tensor
    weights: Tensor

    def forward(self, latent_BCTHW: Tensor) -> Quantized:
        """Quantise; computed in float32 whatever the input's precision."""
        with torch.autocast(latent_BCTHW.device.type, enabled=False):
            reach = (self.radix - 1).float() * (1 + _WIDENING) / 2
            offset = (1 - self.radix % 2).float() / 2
            shift = torch.atanh(offset / reach)
            bounded = torch.tanh(latent_BCTHW.float() + shift) * reach - offset
            # Half to even, as torch.round is; the gradient skips the rounding.
            rounded = bounded + (torch.round(bounded) - bounded).detach()
            centre = self.radix // 2
            digits = torch.round(bounded).long() + centre
            indices = (digits * self.weights).sum(dim=1).int()
            return Quantized(rounded / centre, indices)

    def decode(self, indices_BTHW: Tensor) -> Tensor:
        """The codes of indices, ``[B, C, T, H, W]`` float32.

        Defined for indices below the codebook size only; larger ones wrap around silently.
        """
        digits = indices_BTHW.long().unsqueeze(1) // self.weights % self.radix
        centre = self.radix // 2
        return (digits - centre).float() / centre
