"""Starting from what somebody trained: a whole network, or a base and transformers that do nothing.

The official Cosmos DV4x8x8 autoencoder has our names under ``encoder.``, ``decoder.``,
``quant_conv.``, ``post_quant_conv.`` and ``quantizer.`` (facts section 5), in one file or split
over two programs, and no transformers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from infotok_core.checkpoint import (
    default_directory,
    load_checkpoint,
    load_parameters,
    parameter_names,
)
from infotok_core.config import TokenizerConfig, published
from infotok_core.errors import CheckpointError
from infotok_core.growing import grow, map_as_identity, start_as_identity
from infotok_core.network import Network, build_network
from infotok_core.weight_files import DECODER_FILE, ENCODER_FILE, read_tensors

__all__ = ["WarmStart", "base_tensors", "is_base_name", "load_base", "load_start"]

_BASE = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
_AUTOENCODER_FILE = "autoencoder.jit"
_WEIGHTS_FILE = "model.safetensors"

# Passed over in a file: what we add to a base, which starts anew.
_ADDED = (
    "temporal_embed", "vit_", "post_vit_conv.", "dropped_embed", "budget_embed",
    "information_head.",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmStart:
    """A network to train on, and what of it was there before."""

    network: Network
    """On the CPU, in float32, in evaluation mode, with gradients."""
    how: str
    """For people: what was taken, and what was added."""


def load_start(
    source: str | Path, config: TokenizerConfig | None = None, *, seed: int = 0
) -> WarmStart:
    """Start from any layout: our directory, a published ``.pt``, a Cosmos base.

    A network with transformers is taken whole, and may become a deeper one of the same widths
    (`grow`). A base gets transformers that are the identity (`load_base`).

    Args:
        source: As `load_base` takes.
        config: The network wanted. None: that of our directory; of any other source the published
            one.
        seed: Of what is new.

    Raises:
        CheckpointError: If a file cannot be read, or listing which parameters are missing,
            unexpected, misshapen, or not a finite float.
        ValueError: If what is there cannot become the network wanted.
    """
    path = default_directory() if str(source) == "default" else Path(source)
    if (path / _WEIGHTS_FILE).exists():
        # Whoever asks for a base alone finds it in there, too.
        small = load_checkpoint(path).network
        if config is not None and config.transformer is None and small.config.transformer:
            return _on_base(path, config, seed=seed)
        return _grown(copy.deepcopy(small), config, seed=seed)
    tensors = _read_base(path)
    names = parameter_names(tensors)
    wanted = config or published()
    if wanted.transformer is None or not any(name.startswith("vit_") for name in names):
        return _on_base(path, wanted, seed=seed)
    with torch.device("meta"):
        network = Network(_as_stored(wanted, names))
    load_parameters(network, tensors, source=str(path))
    return _grown(network, wanted, seed=seed)


def _on_base(path: Path, config: TokenizerConfig | None, *, seed: int) -> WarmStart:
    network = load_base(path, config, seed=seed)
    added = "with new transformers that change nothing yet" if network.config.transformer else ""
    return WarmStart(network=network, how=f"its base {added}".rstrip())


def _grown(small: Network, config: TokenizerConfig | None, *, seed: int) -> WarmStart:
    if config is None or config == small.config:
        return WarmStart(network=small, how="the whole of it")
    large = build_network(config, seed=seed)
    grow(small, large)
    return WarmStart(network=large.eval(), how="made deeper, its function unchanged")


def _as_stored(wanted: TokenizerConfig, names: Iterable[str]) -> TokenizerConfig:
    """The network of a file that may lack layers and heads of the one wanted."""
    names = list(names)
    inner = wanted.transformer
    assert inner is not None

    def layers(stack: str, most: int) -> int:
        found = {name.split(".")[1] for name in names if name.startswith(f"{stack}.")}
        # More than are wanted is an error, which loading reports by name.
        return min(len(found), most)

    stored = replace(
        inner,
        encoder_layers=layers("vit_encoder", inner.encoder_layers),
        decoder_layers=layers("vit_decoder", inner.decoder_layers),
        mask_embedding=inner.mask_embedding and "dropped_embed" in names,
        budget_aware=inner.budget_aware and "budget_embed" in names,
    )
    routed = any(name.startswith("information_head.") for name in names)
    router = wanted.latent_router if routed else 0
    return replace(wanted, transformer=stored, latent_router=router)


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
    map_as_identity(network)
    return network


def base_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a file says of the base, under our names; also whatever nobody knows, to be reported."""
    return {k: v for k, v in parameter_names(tensors).items() if not k.startswith(_ADDED)}


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
