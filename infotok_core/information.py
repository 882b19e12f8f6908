"""How much a token is worth: the error of the full-rate reconstruction in the token's cell.

The paper calls it the ELBO and derives a Gaussian likelihood; the published code, and therefore
this, takes the mean absolute error (facts D2). Higher means more information.

Shapes: B videos, C colours, T frames, H rows, W columns; lower-case t, h, w the latent grid.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

__all__ = ["InformationSource", "token_information"]

InformationSource = Literal["elbo", "latent"]
"""Where the information of a token comes from. ``elbo``: measured on the full-rate reconstruction,
which takes a decoder pass. ``latent``: predicted from the latent by a head of the network that was
trained towards the former; no decoder pass, and the tokens are the same."""


def token_information(
    video_BCTHW: Tensor, reconstruction_BCTHW: Tensor, *, temporal: int, spatial: int
) -> Tensor:
    """Mean |x - y| of each token's cell, ``[B, t, h, w]`` in the dtype of the inputs.

    The cell of latent frame 0 is frame 0 alone, of latent frame k >= 1 the ``temporal`` frames it
    adds; so frame 0 weighs 1/t and not 1/T in a mean over the grid.

    Args:
        video_BCTHW: In [-1, 1]; T = 1 + k*temporal, H and W multiples of ``spatial``.
        reconstruction_BCTHW: Same shape; deliberately not clamped.
        temporal: Temporal compression.
        spatial: Spatial compression.
    """
    error_BTHW = (video_BCTHW - reconstruction_BCTHW).abs().mean(dim=1)
    later_BtHW = error_BTHW[:, 1:].unflatten(1, (-1, temporal)).mean(dim=2)
    cells_BtHW = torch.cat([error_BTHW[:, :1], later_BtHW], dim=1)
    return cells_BtHW.unflatten(3, (-1, spatial)).unflatten(2, (-1, spatial)).mean(dim=(3, 5))
