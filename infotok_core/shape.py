"""What a tokenizer makes of a window's shape, whatever computes it."""

from __future__ import annotations

from dataclasses import dataclass

from infotok_core.config import TokenizerConfig

__all__ = ["TokenShape", "shape_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenShape:
    """Compression, vocabulary, and the windows that are taken."""

    temporal_compression: int
    """Frames per latent frame, after the first."""
    spatial_compression: int
    """Pixels per latent row and column."""
    codebook_size: int
    """Number of distinct tokens; indices run from 0 to this minus one."""
    max_grid: tuple[int, int, int] | None = None
    """Largest (t, h, w) that there are embeddings for; None: any."""
    window: tuple[int, int, int] | None = None
    """The one window (T, H, W) that is taken; None: any that the compression divides."""

    def grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """The latent grid (t, h, w) of a window.

        Raises:
            ValueError: If the tokenizer does not take such a window; nothing is padded here.
        """
        temporal, spatial = self.temporal_compression, self.spatial_compression
        if frames < 1 or (frames - 1) % temporal:
            raise ValueError(f"a window has 1 + {temporal}k frames, not {frames}")
        if min(height, width) < spatial or height % spatial or width % spatial:
            raise ValueError(f"frame sides are multiples of {spatial}, not {height}x{width}")
        if self.window is not None and self.window != (frames, height, width):
            raise ValueError(
                f"the programs take windows of {_times(self.window)} alone, "
                f"not {_times((frames, height, width))}"
            )
        grid = (1 + (frames - 1) // temporal, height // spatial, width // spatial)
        if self.max_grid and any(a > b for a, b in zip(grid, self.max_grid, strict=True)):
            raise ValueError(
                f"grid {grid} exceeds the embeddings: {self.max_grid[0]} frames of "
                f"{self.max_grid[1]} rows and {self.max_grid[2]} columns"
            )
        return grid


def shape_of(config: TokenizerConfig | TokenShape) -> TokenShape:
    """The shape of a network of ours."""
    if isinstance(config, TokenShape):
        return config
    inner = config.transformer
    return TokenShape(
        temporal_compression=config.temporal_compression,
        spatial_compression=config.spatial_compression,
        codebook_size=config.codebook_size,
        max_grid=(inner.max_frames, inner.max_positions, inner.max_positions) if inner else None,
    )


def _times(sizes: tuple[int, int, int]) -> str:
    return "x".join(map(str, sizes))
