"""Starting from a base that somebody trained: its weights, and transformers that do nothing yet.

The official Cosmos DV4x8x8 autoencoder has our names under ``encoder.``, ``decoder.``,
``quant_conv.``, ``post_quant_conv.`` and ``quantizer.`` (facts section 5), in one file or split
over two programs, and no transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from infotok_core.checkpoint import default_directory, load_parameters, parameter_names
from infotok_core.config import TokenizerConfig, published
from infotok_core.errors import CheckpointError
from infotok_core.network import Network, build_network
from infotok_core.training import start_as_identity
from infotok_core.weight_files import DECODER_FILE, ENCODER_FILE, read_tensors

__all__ = ["base_tensors", "is_base_name", "load_base"]

_BASE = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
_AUTOENCODER_FILE = "autoencoder.jit"
_WEIGHTS_FILE = "model.safetensors"

# Passed over in a file: our transformers, which start anew.
_TRANSFORMERS = ("temporal_embed", "vit_", "post_vit_conv.")


def is_base_name(name: str) -> bool:
    """Whether a parameter of a network belongs to the base: all but the transformers do."""
    return name.startswith(_BASE)


def load_base(
    source: str | Path, config: TokenizerConfig | None = None, *, seed: int = 0
) -> Network:
    """A network whose base has the weights of ``source``, and whose transformers are the identity.

    It computes what the base alone computes, until it is trained. On the CPU, in float32, in
    evaluation mode, with gradients.

    Args:
        source: A file (``.pt``, ``.safetensors``, or the parameters of a TorchScript ``.jit``),
            or a directory with ``autoencoder.jit``, with ``encoder.jit`` and ``decoder.jit``, or
            of ours (``default``: the shipped one). Transformers in it are passed over.
        config: Of the network, the new transformers included; None: the published one.
        seed: Of what the transformers will learn from, behind their silenced outputs.

    Raises:
        CheckpointError: If a file cannot be read, or listing which parameters of the base are
            missing, unexpected, misshapen, or not a finite float.
        ValueError: If the new transformers are narrower than the latent.
    """
    inner = (config := config or published()).transformer
    if inner and inner.hidden < config.z_channels:
        raise ValueError(
            f"transformers of width {inner.hidden} cannot start as the identity of a latent of "
            f"{config.z_channels} channels"
        )
    path = default_directory() if str(source) == "default" else Path(source)
    network = build_network(config, seed=seed)
    found = base_tensors(_read_base(path))
    own = {k: v.detach() for k, v in network.named_parameters() if not is_base_name(k)}
    load_parameters(network, {**found, **own}, source=str(path))
    start_as_identity(network)
    _map_as_identity(network)
    return network


@torch.no_grad()
def _map_as_identity(network: Network) -> None:
    """Where the transformers are wider than the latent: pad it with zeros, and cut them off."""
    for layer in (network.vit_conv, network.post_vit_conv) if network.config.transformer else ():
        if isinstance(layer, nn.Linear):
            nn.init.eye_(layer.weight)


def base_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a file says of the base, under our names; also whatever nobody knows, to be reported."""
    return {k: v for k, v in parameter_names(tensors).items() if not k.startswith(_TRANSFORMERS)}


def _read_base(path: Path) -> dict[str, Tensor]:
    if not path.is_dir():
        if not path.exists():
            raise CheckpointError(str(path), "does not exist")
        return read_tensors(path)
    for name in (_WEIGHTS_FILE, _AUTOENCODER_FILE):
        if (path / name).exists():
            return read_tensors(path / name)
    if not (path / ENCODER_FILE).exists():
        known = (_AUTOENCODER_FILE, ENCODER_FILE, DECODER_FILE, _WEIGHTS_FILE)
        raise CheckpointError(str(path), f"holds none of {', '.join(known)}")
    return {**read_tensors(path / DECODER_FILE), **read_tensors(path / ENCODER_FILE)}
