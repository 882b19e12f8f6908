"""Whether a tokenizer can do what a configuration asks of it, before anything is decoded."""

from __future__ import annotations

from infotok_core.opening import TokenizerIdentity
from pipelines.config import RunConfig
from pipelines.errors import PipelineError
from schemas.tokens import MAX_CODES

__all__ = ["check_tokenizer", "check_windows"]

_SIDES_OF_KEEP = 16
"""What `pipelines.geometry` crops sides to multiples of."""


def check_tokenizer(config: RunConfig, tokenizer: TokenizerIdentity) -> None:
    """Whether its tokens can become a corpus.

    Raises:
        PipelineError: Naming what does not fit.
    """
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


def check_windows(config: RunConfig, tokenizer: TokenizerIdentity) -> None:
    """Whether it takes the windows; else every video would be decoded before it is set aside.

    Raises:
        PipelineError: Naming what does not fit.
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
    if tokenizer.precision not in (None, config.tokenizer.dtype):
        raise PipelineError(
            f"tokenizer {config.tokenizer.checkpoint} computes in {tokenizer.precision} "
            f"alone: set tokenizer.dtype = {tokenizer.precision}"
        )
