"""Features of whole clips for FVD, from an I3D network that a user has as TorchScript.

The file is the one that most published FVD numbers come from (``i3d_torchscript.pt``): called with
``[B, 3, T, H, W]`` and ``rescale``, ``resize``, ``return_features``, it gives the 400 logits before
the softmax. Clips go in in [-1, 1] with ``rescale=False`` and are scaled to 224 x 224 by the
network's own ``resize=True``.

Shapes: B clips, C = 3 colours, T frames, H rows, W columns, D features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from infotok_core.errors import CheckpointError, WeightsError
from infotok_core.weight_files import load_program

__all__ = ["ClipFeatures"]


class ClipFeatures:
    """A TorchScript network that turns clips into vectors."""

    def __init__(self, network: torch.jit.ScriptModule, *, source: str) -> None:
        self._network = network.eval()
        self._source = source

    @classmethod
    def load(cls, path: str | Path, *, device: str | torch.device = "cpu") -> Self:
        """Load the file. TorchScript is a program: load only files you trust.

        Raises:
            WeightsError: If the file is absent, damaged, or no TorchScript.
        """
        try:
            network = load_program(Path(path), device=device)
        except CheckpointError as error:
            raise WeightsError(error.path, error.cause) from error
        return cls(network, source=str(path))

    @torch.inference_mode()
    def __call__(self, video_BCTHW: Tensor) -> Tensor:
        """Features ``[B, D]`` in float64 on the CPU of clips in [-1, 1].

        Raises:
            WeightsError: If the network does not take such a call, or gives something else.
        """
        try:
            features: object = self._network(
                video_BCTHW.float(), rescale=False, resize=True, return_features=True
            )
        except RuntimeError as error:
            cause = (
                "cannot be called as I3D is, with [B, 3, T, H, W] and the options rescale, resize "
                f"and return_features: {str(error).strip().splitlines()[-1]}"
            )
            raise WeightsError(self._source, cause) from error
        if not isinstance(features, Tensor) or features.shape[:1] != video_BCTHW.shape[:1]:
            raise WeightsError(self._source, "does not give one vector per clip")
        if features.dim() != 2 or not features.isfinite().all():
            raise WeightsError(
                self._source, f"gives {list(features.shape)}, not finite vectors [B, D]"
            )
        return features.double().cpu()
