"""Does this implementation compute what the published one computed? Golden arrays decide.

A golden set is three files of one prefix: ``.json`` (configuration in the published layout and the
quantities in ``meta``), ``.safetensors`` (weights), ``.npz`` (arrays by name). A name that no check
here knows is reported: an array is never passed over in silence.

Shapes: B videos, C channels, T frames, H rows, W columns; lower-case t, h, w the latent grid.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infotok_core.checkpoint import Checkpoint, fingerprint, load_parameters
from infotok_core.config import TokenizerConfig, from_reference_dict
from infotok_core.errors import CheckpointError
from infotok_core.information import token_information
from infotok_core.network import Network
from infotok_core.patching import patch
from infotok_core.router import Strategy, select_reference, training_mask, training_ratios, window_rates
from infotok_core.sliding import SlidingRules, analyse_video, mean_elbo, reconstruct_video
from infotok_core.tokenizer import Tokenizer, from_uint8

__all__ = ["LIMIT", "Comparison", "Golden", "check_golden", "read_golden"]

LIMIT = 1e-4
"""Largest absolute error a float32 re-implementation may show. The golden sets keep every value
before rounding at least 4e-4 away from a rounding boundary, so tokens have to be identical."""

Kind = Literal["values", "tokens", "mask", "pixels", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One golden array against ours."""

    name: str
    stage: str
    """The name without clip, strategy and rate: what the table groups by."""
    kind: Kind
    max_error: float
    num_different: int
    """Elements that differ at all."""
    size: int

    @property
    def passed(self) -> bool:
        """Values within `LIMIT`; everything else identical; an unknown name never passes."""
        if self.kind == "unknown":
            return False
        return self.max_error <= LIMIT if self.kind == "values" else self.num_different == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """A golden set, read."""

    tokenizer: Tokenizer
    arrays: Mapping[str, NDArray[Any]]
    meta: Mapping[str, Any]
    legend: Mapping[str, str]


def read_golden(prefix: str | Path) -> Golden:
    """Read ``PREFIX.json``, ``PREFIX.safetensors`` and ``PREFIX.npz`` and build the network.

    Raises:
        CheckpointError: If a file is absent or the weights are of another network.
        ValueError: If the configuration asks for what is not implemented.
    """
    paths = {suffix: Path(f"{prefix}.{suffix}") for suffix in ("json", "safetensors", "npz")}
    for path in paths.values():
        if not path.is_file():
            raise CheckpointError(str(path), "does not exist: a golden set has three files")
    from safetensors.torch import load_file

    document = json.loads(paths["json"].read_text())
    with torch.device("meta"):
        network = Network(from_reference_dict(document["config"]))
    ema = load_parameters(
        network, load_file(paths["safetensors"]), source=str(paths["safetensors"])
    )
    checkpoint = Checkpoint(network=network, fingerprint=fingerprint(network), ema_loss=ema)
    with np.load(paths["npz"]) as arrays:
        loaded = {name: arrays[name] for name in arrays.files}
    return Golden(
        tokenizer=Tokenizer(checkpoint),
        arrays=loaded,
        meta=document["meta"],
        legend=document.get("legend", {}),
    )
