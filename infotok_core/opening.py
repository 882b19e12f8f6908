"""The one place that knows every kind of ``--checkpoint``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from infotok_core.checkpoint import load_checkpoint
from infotok_core.code_space_files import (
    holds_compressor,
    identify_code_space,
    open_code_space,
)
from infotok_core.errors import CheckpointError
from infotok_core.information import InformationSource
from infotok_core.precision import default_dtype
from infotok_core.programs import ProgramTokenizer, read_programs
from infotok_core.shape import TokenShape, shape_of
from infotok_core.tokenizer import Tokenizer, VideoCodec
from infotok_core.weight_files import holds_programs

__all__ = ["TokenizerIdentity", "identify_tokenizer", "named_dtype", "open_tokenizer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerIdentity:
    """Which tokenizer it is and what it makes of shapes."""

    fingerprint: str
    shape: TokenShape
    precision: str | None = None
    """The name of the one dtype it computes in; None: it is cast to what is asked for."""
    programs: bool = False
    """Whether it is a pair of programs, of which only running them tells that they run."""
    latent_router: bool = False
    """Whether it can predict the information of its tokens."""
    budget_aware: bool = False
    """Whether its tokens depend on which of them are kept."""


def open_tokenizer(
    source: str | Path = "default",
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    information: InformationSource = "elbo",
) -> VideoCodec:
    """Load a tokenizer, ready to run.

    Args:
        source: What `load_checkpoint` takes, or a directory of TorchScript programs (see
            `programs`), with or without a compressor of ours (`code_space`).
        device: Where it runs.
        dtype: What it computes in; None: what programs are made for, else float32 on a CPU and
            float16 on a GPU.
        information: Measured or predicted.

    Raises:
        CheckpointError: If it cannot be used.
        ValueError: If device, tokenizer and ``dtype`` do not fit, there is no such device, or no
            latent router to predict the ``information``.
    """
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError("there is no GPU here that torch can use")
    if _are_programs(source):
        if information == "latent":
            raise ValueError("programs have no latent router: measure the information (elbo)")
        if holds_compressor(Path(source)):
            return open_code_space(source, device=device, dtype=dtype)
        return ProgramTokenizer.load(source, device=device, dtype=dtype)
    chosen = dtype or cast(torch.dtype, getattr(torch, default_dtype(torch.device(device).type)))
    return Tokenizer.load(source, device=device, dtype=chosen, information=information)


def named_dtype(name: str) -> torch.dtype | None:
    """What `open_tokenizer` takes, by name; None for ``auto``."""
    return None if name == "auto" else cast(torch.dtype, getattr(torch, name))


def identify_tokenizer(source: str | Path = "default") -> TokenizerIdentity:
    """What `open_tokenizer` would open. Programs are not run, as this device may not be theirs.

    Raises:
        CheckpointError: If it cannot be used, as far as that shows.
    """
    if _are_programs(source) and holds_compressor(Path(source)):
        fingerprint, shape, settings, inner = identify_code_space(source)
        return TokenizerIdentity(
            fingerprint=fingerprint, shape=shape, precision=settings.precision, programs=True,
            budget_aware=inner.budget_aware,
        )  # fmt: skip
    if _are_programs(source):
        programs = read_programs(source)
        return TokenizerIdentity(
            fingerprint=programs.fingerprint,
            shape=programs.settings.shape,
            precision=programs.settings.precision,
            programs=True,
        )
    checkpoint = load_checkpoint(source)
    return TokenizerIdentity(
        fingerprint=checkpoint.fingerprint,
        shape=shape_of(checkpoint.network.config),
        latent_router=bool(checkpoint.network.config.latent_router),
        budget_aware=checkpoint.network.is_budget_aware,
    )


def _are_programs(source: str | Path) -> bool:
    path = Path(source)
    if path.suffix == ".jit" and path.is_file():
        raise CheckpointError(
            str(path), "is one program: name the directory of encoder.jit and decoder.jit"
        )
    return str(source) != "default" and holds_programs(path)
