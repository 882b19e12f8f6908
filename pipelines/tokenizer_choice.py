"""The tokenizer of a configuration, and whether the two go together; said before anything runs."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from infotok_core.errors import CheckpointError
from infotok_core.opening import TokenizerIdentity, identify_tokenizer
from pipelines.config import RunConfig
from pipelines.errors import PipelineError
from schemas.tokens import MAX_CODES

__all__ = ["check_device", "check_windows", "chosen_tokenizer", "opening_tokenizer"]

_SIDES_OF_KEEP = 16
"""What `pipelines.geometry` crops sides to multiples of."""


@contextmanager
def opening_tokenizer() -> Generator[None]:
    """Say that it was the tokenizer that cannot be used.

    Raises:
        PipelineError: If it cannot.
    """
    try:
        yield
    except (CheckpointError, ValueError) as error:
        raise PipelineError(f"tokenizer: {error}") from error


def chosen_tokenizer(config: RunConfig) -> TokenizerIdentity:
    """Which tokenizer the configuration names.

    Raises:
        PipelineError: If it cannot be used.
    """
    try:
        tokenizer = identify_tokenizer(config.tokenizer.checkpoint)
    except CheckpointError as error:
        raise PipelineError(f"tokenizer: {error}") from error
    _check(config, tokenizer)
    return tokenizer


def check_windows(config: RunConfig, tokenizer: TokenizerIdentity) -> None:
    """Prove that the tokenizer takes the windows of the configuration.

    Raises:
        PipelineError: If not; else every video would be decoded before it is set aside.
    """
    shape = tokenizer.shape
    try:
        if config.space.mode == "keep" and _SIDES_OF_KEEP % shape.spatial_compression:
            raise ValueError(
                f"space.mode = keep gives sides of multiples of {_SIDES_OF_KEEP}, not "
                f"{shape.spatial_compression}"
            )
        shape.grid(config.window.frames, config.space.size, config.space.size)
    except ValueError as error:
        raise PipelineError(
            f"tokenizer {config.tokenizer.checkpoint} does not fit window.frames = "
            f"{config.window.frames} and space.size = {config.space.size}: {error}"
        ) from error
    if tokenizer.precision is not None and config.tokenizer.dtype not in (
        "auto",
        tokenizer.precision,
    ):
        raise PipelineError(
            f"tokenizer {config.tokenizer.checkpoint} computes in {tokenizer.precision} "
            f"alone: set tokenizer.dtype = {tokenizer.precision}"
        )


def check_device(config: RunConfig, tokenizer: TokenizerIdentity, device: str) -> None:
    """Prove that the tokenizer computes on ``cpu`` or ``cuda`` in what it has to.

    Raises:
        PipelineError: If not.
    """
    dtype = tokenizer.precision or config.tokenizer.dtype_on(device)
    if device == "cpu" and dtype != "float32":
        raise PipelineError(
            f"tokenizer: {config.tokenizer.checkpoint} in {dtype} needs a GPU: the CPU computes in "
            "float32 alone"
        )


def _check(config: RunConfig, tokenizer: TokenizerIdentity) -> None:
    name = config.tokenizer.checkpoint
    if tokenizer.shape.codebook_size > MAX_CODES:
        raise PipelineError(
            f"tokenizer: {name} has a codebook of {tokenizer.shape.codebook_size:,}: rows hold "
            f"uint16 tokens, {MAX_CODES:,} at most"
        )
    if config.analysis.information == "latent" and not tokenizer.latent_router:
        raise PipelineError(
            f"tokenizer: {name} has no latent router, which analysis.information = latent asks "
            "for: train one, or set it to elbo"
        )
    if tokenizer.budget_aware and config.runtime.second_pass == "reuse":
        raise PipelineError(
            f"tokenizer: {name} has a budget-aware compressor: its tokens depend on the rate, so "
            "those of pass one cannot be selected from (second_pass = reuse)"
        )
    if tokenizer.budget_aware:
        raise PipelineError(
            f"tokenizer: {name} has a budget-aware compressor, and second_pass = recompute makes "
            "the tokens of pass one again, not those of a mask: corpora of such a checkpoint are "
            "not built; evaluate it, or train without budget_aware"
        )
