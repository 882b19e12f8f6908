"""Weights on disk: the published layout and our directory, loaded without running any pickle.

Our directory: ``model.safetensors`` (float16 or float32), ``config.json`` (format version, network
configuration, fingerprint), ``README.md`` (what the weights are and where they come from).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from infotok_core.config import TokenizerConfig, from_dict, published, to_dict
from infotok_core.errors import CheckpointError
from infotok_core.network import Network
from infotok_core.weight_files import holds_programs, read_tensors, write_tensors

__all__ = [
    "FORMAT_VERSION",
    "Checkpoint",
    "default_directory",
    "fingerprint",
    "load_checkpoint",
    "load_parameters",
    "parameter_names",
    "save_directory",
]

FORMAT_VERSION = 1
"""Of config.json. Readers refuse a greater one."""

# What a training run of the published code stores beside the parameters.
_IGNORED_PREFIXES = ("quantizer.", "encoder.patcher", "decoder.unpatcher", "save_loss", "ema_loss")
_LISTED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A network with its weights in float32, in evaluation mode, on the CPU."""

    network: Network
    fingerprint: str
    ema_loss: float | None
    """Running E[L1] of the training run, where the file has one that was ever updated."""


def default_directory() -> Path:
    """Where the shipped checkpoint lies inside the package."""
    return Path(__file__).parent / "checkpoints" / "default"


def load_checkpoint(
    source: str | Path = "default", *, config: TokenizerConfig | None = None
) -> Checkpoint:
    """Load weights and say which they are.

    Args:
        source: ``default`` (shipped), a directory of ours, or a file in the published layout:
            ``.pt`` written by ``torch.save``, or ``.safetensors`` with the same names.
        config: The network of a published-layout file, if it is not the published one. A directory
            has its own.

    Raises:
        CheckpointError: If the weights are absent, damaged, or of another network.
        ValueError: If ``config`` is given for a directory and differs from its own.
    """
    path = default_directory() if str(source) == "default" else Path(source)
    if not path.exists():
        hint = " (this installation ships none: name a checkpoint)" if source == "default" else ""
        raise CheckpointError(str(path), f"does not exist{hint}")
    if path.is_dir():
        return _load_directory(path, config)
    tensors = read_tensors(path)
    with torch.device("meta"):
        network = Network(config or published())
    ema_loss = load_parameters(network, tensors, source=str(path))
    return Checkpoint(network=network, fingerprint=fingerprint(network), ema_loss=ema_loss)


def load_parameters(
    network: Network, tensors: Mapping[str, Tensor], *, source: str
) -> float | None:
    """Fill a network from tensors under published names, every parameter or none.

    A ``network.`` prefix and a ``torch.compile`` wrapper in the names are stripped, any floating
    dtype becomes float32, and the buffers of the published code are passed over. The network is
    left in evaluation mode; it may have been built on the meta device.

    Args:
        network: To be filled.
        tensors: From a file; not modified.
        source: Named in errors.

    Returns:
        ``ema_loss`` if there is one greater than 0.

    Raises:
        CheckpointError: Listing what is missing, unexpected, misshapen, or not a finite float.
    """
    named = parameter_names(tensors)
    wanted = dict(network.named_parameters())
    found = {k: v for k, v in named.items() if not k.startswith(_IGNORED_PREFIXES)}
    problems = [
        *_listing("missing", sorted(set(wanted) - set(found))),
        *_listing("unexpected", sorted(set(found) - set(wanted))),
        *_listing("of another shape", _misshapen(wanted, found)),
        *_listing("not floating point", [k for k, v in found.items() if not v.is_floating_point()]),
    ]
    if not problems:
        found = {k: v.float().contiguous() for k, v in found.items()}
        broken = [k for k, v in found.items() if not v.isfinite().all()]
        problems = _listing("not finite", broken)
    if problems:
        raise CheckpointError(source, "; ".join(problems))
    network.load_state_dict(found, assign=True)
    network.requires_grad_(requires_grad=True).eval()
    ema_loss = named.get("ema_loss")
    return float(ema_loss) if ema_loss is not None and float(ema_loss) > 0 else None


def fingerprint(network: Network) -> str:
    """SHA-256 (hex) over the configuration and every parameter's name, shape and float32 bytes.

    The same weights stored in another file format have the same fingerprint; weights rounded to
    float16 for storage are other weights.
    """
    digest = hashlib.sha256()
    digest.update(_canonical(to_dict(network.config)))
    for name, parameter in sorted(network.named_parameters()):
        values = parameter.detach().to(device="cpu", dtype=torch.float32).contiguous().numpy()
        digest.update(_canonical([name, list(values.shape)]))
        digest.update(values.astype("<f4", copy=False).data)
    return digest.hexdigest()


def save_directory(
    network: Network, path: Path, *, card: str, dtype: Literal["float16", "float32"] = "float16"
) -> str:
    """Write our directory (created if absent) and return the fingerprint of what a load will give.

    Args:
        network: In any precision.
        path: Existing files of the three names are overwritten.
        card: The model card, Markdown.
        dtype: Of the stored weights; float16 rounds them.

    Raises:
        ValueError: If a weight is not finite in ``dtype``.
    """
    kind = torch.float16 if dtype == "float16" else torch.float32
    stored = {
        name: parameter.detach().to(device="cpu", dtype=kind).contiguous()
        for name, parameter in network.named_parameters()
    }
    broken = [name for name, values in stored.items() if not values.isfinite().all()]
    if broken:
        raise ValueError(f"weights not finite in {dtype}: {', '.join(broken[:_LISTED])}")
    with torch.device("meta"):
        rounded = Network(network.config)
    load_parameters(rounded, stored, source=str(path))
    identity = fingerprint(rounded)
    document = {
        "format_version": FORMAT_VERSION,
        "config": to_dict(network.config),
        "fingerprint": identity,
    }
    path.mkdir(parents=True, exist_ok=True)
    write_tensors(stored, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
    (path / "README.md").write_text(card)
    return identity


def _load_directory(path: Path, config: TokenizerConfig | None) -> Checkpoint:
    file = path / "config.json"
    try:
        document = json.loads(file.read_text())
        version = document["format_version"]
        own = from_dict(document["config"])
        stored = document["fingerprint"]
    except FileNotFoundError as error:
        cause = "does not exist: not a checkpoint directory"
        if holds_programs(path):
            cause = "does not exist: the directory holds programs, which are run and not loaded"
        raise CheckpointError(str(file), cause) from error
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(str(file), f"is not a checkpoint configuration: {error!r}") from error
    if version > FORMAT_VERSION:
        raise CheckpointError(str(file), f"format version {version} is newer than {FORMAT_VERSION}")
    if config is not None and config != own:
        raise ValueError(f"config differs from the one of {file}: {config} against {own}")
    weights = path / "model.safetensors"
    with torch.device("meta"):
        network = Network(own)
    ema_loss = load_parameters(network, read_tensors(weights), source=str(weights))
    identity = fingerprint(network)
    if identity != stored:
        raise CheckpointError(
            str(weights), f"fingerprint {identity} differs from config.json's {stored}"
        )
    return Checkpoint(network=network, fingerprint=identity, ema_loss=ema_loss)


def parameter_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a network under its own names: prefixes and wrappers taken off."""
    prefix = "network."
    if any(name.startswith(prefix) for name in tensors):
        # The rest belongs to losses, weight averages and such.
        tensors = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    return {name.replace("_orig_mod.", ""): values for name, values in tensors.items()}


def _misshapen(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{name} (file {list(found[name].shape)}, network {list(wanted[name].shape)})"
        for name in sorted(set(wanted) & set(found))
        if found[name].shape != wanted[name].shape
    ]


def _listing(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return [f"{len(names)} parameters {what}: {', '.join(names[:_LISTED])}{rest}"]


def _canonical(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
