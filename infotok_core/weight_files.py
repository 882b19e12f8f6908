"""Files of weights, read to named tensors without running any pickle.

Also the layout in which official Cosmos tokenizers come: a directory with one TorchScript program
for each direction.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from infotok_core.errors import CheckpointError

__all__ = [
    "DECODER_FILE",
    "ENCODER_FILE",
    "archive_damage",
    "holds_programs",
    "last_line",
    "load_program",
    "read_tensors",
    "write_tensors",
]

ENCODER_FILE = "encoder.jit"
DECODER_FILE = "decoder.jit"

_ZIP = b"PK"
"""How torch's archives begin."""


def holds_programs(path: Path) -> bool:
    """Whether a directory is a pair of programs, or part of one, and not a checkpoint of ours."""
    if (path / "model.safetensors").exists():
        return False
    return any((path / name).exists() for name in (ENCODER_FILE, DECODER_FILE))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All named tensors of a file, on the CPU, in their own dtypes.

    Args:
        path: ``.safetensors``, ``.jit`` (TorchScript; its parameters), or anything else
            that ``torch.save`` wrote; of a document with a ``model`` entry that entry alone.

    Raises:
        CheckpointError: If the file is absent, damaged, or holds no named tensors.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix == ".jit":
        # Not its buffers: those are constants of whoever wrote it.
        return {k: v.detach() for k, v in load_program(path).named_parameters()}
    return _read_torch(path)


def load_program(path: Path, *, device: str | torch.device = "cpu") -> torch.jit.ScriptModule:
    """A TorchScript program, on ``device`` and in evaluation mode.

    Running one executes what its author wrote: trust it like a library.

    Raises:
        CheckpointError: If the file is absent, damaged, or no TorchScript.
    """
    _require_archive(path)
    try:
        with warnings.catch_warnings():
            # The layout is TorchScript's, whatever torch recommends for new programs.
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, OSError) as error:
        raise CheckpointError(
            str(path), f"is no TorchScript program: {last_line(error)}"
        ) from error


def last_line(error: BaseException) -> str:
    """The cause in an error of TorchScript, whose messages begin with pages of traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(str(path), "does not exist") from error
    except safetensors.SafetensorError as error:
        raise CheckpointError(str(path), f"damaged or not safetensors: {error}") from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    _require_archive(path)
    try:
        document: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # What torch says begins with advice to load it all the same, which nobody can follow here.
        raise CheckpointError(
            str(path),
            "holds objects other than tensors, which are not loaded; keep its `model` entry alone",
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise CheckpointError(str(path), f"damaged archive: {error}") from error
    if isinstance(document, Mapping) and isinstance(document.get("model"), Mapping):
        document = document["model"]
    if not isinstance(document, Mapping) or not document:
        raise CheckpointError(str(path), f"holds a {type(document).__name__}, not named tensors")
    return {str(k): v for k, v in document.items() if isinstance(v, Tensor)}


def write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """A ``.safetensors`` file; a full disk, or a kill, leaves what was there before.

    Raises:
        OSError: If it cannot be written.
        safetensors.SafetensorError: Likewise.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    safetensors.torch.save_file(tensors, temporary)
    temporary.replace(path)


def archive_damage(path: Path) -> str | None:
    """What is wrong with a zip archive, as torch writes them; None: nothing, or it is none.

    Torch stores checksums, and does not look at them: flipped bits would be weights.

    Raises:
        OSError: If the file is absent, or may not be read.
    """
    with path.open("rb") as file:
        return _damage(file) if file.read(len(_ZIP)) == _ZIP else None


def _damage(file: BinaryIO) -> str | None:
    try:
        if not zipfile.is_zipfile(file):
            return "is truncated: the end of the zip archive is missing"
        with zipfile.ZipFile(file) as archive:
            # Who saved it may have asked for none (`torch.serialization.set_crc32_options`).
            has_checksums = any(entry.CRC for entry in archive.infolist())
            broken = archive.testzip() if has_checksums else None
    except (zipfile.BadZipFile, zlib.error, RuntimeError, OSError, EOFError, ValueError) as error:
        # RuntimeError: a flipped bit says that it is encrypted, or packed in an unknown way.
        return f"damaged archive: {error}"
    return None if broken is None else f"damaged archive: {broken} does not match its checksum"


def _require_archive(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(64)
            cause = _damage(file) if head.startswith(_ZIP) else _other_kind(head)
    except FileNotFoundError as error:
        raise CheckpointError(str(path), "does not exist") from error
    except OSError as error:
        raise CheckpointError(str(path), f"cannot be read: {error.strerror}") from error
    if cause is not None:
        raise CheckpointError(str(path), cause)


def _other_kind(head: bytes) -> str:
    if not head:
        return "is empty"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the weights: fetch them with `git lfs pull`"
    return "is not a zip archive, so not written by torch"
