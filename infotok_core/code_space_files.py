"""A base with our compressor on disk: the base's own files, and two of ours beside them.

```
encoder.jit  decoder.jit  tokenizer.json      the base, copied as it is
compressor.json  compressor.safetensors       the transformers, float32
README.md                                     the model card
```
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infotok_core.checkpoint import Checkpoint, load_parameters
from infotok_core.code_space import (
    CodeSpaceNetwork,
    CodeSpaceTokenizer,
    code_space_config,
    code_space_shape,
)
from infotok_core.config import TokenizerConfig, TransformerConfig, to_dict
from infotok_core.errors import CheckpointError
from infotok_core.program_settings import SETTINGS_FILE, ProgramSettings
from infotok_core.programs import Programs, ProgramTokenizer, read_programs
from infotok_core.shape import TokenShape
from infotok_core.weight_files import DECODER_FILE, ENCODER_FILE, read_tensors, write_tensors

__all__ = [
    "holds_compressor",
    "identify_code_space",
    "load_code_space",
    "open_code_space",
    "save_code_space",
]

FORMAT_VERSION = 1
_CONFIG_FILE = "compressor.json"
_WEIGHTS_FILE = "compressor.safetensors"


def holds_compressor(directory: Path) -> bool:
    """Whether a pair of programs has a compressor of ours beside it."""
    return (directory / _CONFIG_FILE).exists()


def save_code_space(network: CodeSpaceNetwork, directory: Path, *, card: str) -> str:
    """Write a directory that is a ``--checkpoint`` (created if absent); returns its fingerprint.

    Raises:
        ValueError: If a weight is not finite.
    """
    tensors = {
        name: parameter.detach().to(device="cpu", dtype=torch.float32).contiguous()
        for name, parameter in network.named_parameters()
    }
    broken = [name for name, values in tensors.items() if not values.isfinite().all()]
    if broken:
        raise ValueError(f"weights not finite: {', '.join(broken[:8])}")
    directory.mkdir(parents=True, exist_ok=True)
    source = network.base.directory
    for name in (ENCODER_FILE, DECODER_FILE, SETTINGS_FILE):
        if (source / name).exists() and source.resolve() != directory.resolve():
            shutil.copyfile(source / name, directory / name)
    identity = _fingerprint(network.base.fingerprint, network.config, tensors)
    document = {
        "format_version": FORMAT_VERSION,
        "transformer": to_dict(network.config)["transformer"],
        "fingerprint": identity,
    }
    write_tensors(tensors, directory / _WEIGHTS_FILE)
    (directory / _CONFIG_FILE).write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
    (directory / "README.md").write_text(card)
    return identity


def load_code_space(
    directory: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> Checkpoint:
    """Base, transformers and who they are; on the CPU unless a device is named.

    Raises:
        CheckpointError: If a file is absent, damaged, or of another network.
        ValueError: If device, programs and ``dtype`` do not fit.
    """
    programs, inner, stored = _read(Path(directory))
    base = ProgramTokenizer(programs, device=device, dtype=dtype)
    try:
        network = CodeSpaceNetwork(base, inner)
    except ValueError as error:
        raise CheckpointError(str(programs.directory), str(error)) from error
    weights = programs.directory / _WEIGHTS_FILE
    load_parameters(network, read_tensors(weights), source=str(weights))
    parameters = {name: p.detach() for name, p in network.named_parameters()}
    identity = _fingerprint(programs.fingerprint, network.config, parameters)
    if identity != stored:
        raise CheckpointError(
            str(programs.directory),
            f"fingerprint {identity} differs from {_CONFIG_FILE}'s {stored}: programs, settings "
            "and compressor do not belong together",
        )
    return Checkpoint(network=network.to(device), fingerprint=identity, ema_loss=None)


def open_code_space(
    directory: str | Path, *, device: str | torch.device, dtype: torch.dtype | None
) -> CodeSpaceTokenizer:
    """Ready to run; raises as `load_code_space` does."""
    checkpoint = load_code_space(directory, device=device, dtype=dtype)
    return CodeSpaceTokenizer(checkpoint, device=device, dtype=dtype or torch.float32)


def identify_code_space(
    directory: str | Path,
) -> tuple[str, TokenShape, ProgramSettings, TransformerConfig]:
    """Fingerprint, shape, and what the programs and the transformers are; nothing is run.

    Raises:
        CheckpointError: If it cannot be used, as far as that shows.
    """
    programs, inner, stored = _read(Path(directory))
    tensors = read_tensors(programs.directory / _WEIGHTS_FILE)
    found = _fingerprint(programs.fingerprint, code_space_config(programs.settings, inner), tensors)
    if found != stored:
        raise CheckpointError(
            str(programs.directory), f"fingerprint {found} differs from {_CONFIG_FILE}'s {stored}"
        )
    return found, code_space_shape(programs.settings, inner), programs.settings, inner


def _read(directory: Path) -> tuple[Programs, TransformerConfig, str]:
    programs = read_programs(directory)
    file = directory / _CONFIG_FILE
    try:
        document: dict[str, Any] = json.loads(file.read_text())
        version, stored = document["format_version"], document["fingerprint"]
        inner = TransformerConfig(**document["transformer"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(str(file), f"is not a compressor's: {error!r}") from error
    if version > FORMAT_VERSION:
        raise CheckpointError(str(file), f"format version {version} is newer than {FORMAT_VERSION}")
    return programs, inner, stored


def _fingerprint(base: str, config: TokenizerConfig, tensors: Mapping[str, Tensor]) -> str:
    inner = to_dict(config)["transformer"]
    digest = hashlib.sha256(json.dumps([base, inner], sort_keys=True).encode())
    for name, values in sorted(tensors.items()):
        array = values.detach().cpu().float().contiguous().numpy()
        digest.update(json.dumps([name, list(array.shape)]).encode())
        digest.update(array.astype("<f4", copy=False).data)
    return digest.hexdigest()
