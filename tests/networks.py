"""The network of most tests: every kind of layer, ten milliseconds a window."""

from __future__ import annotations

from typing import Any

from infotok_core.config import TokenizerConfig, TransformerConfig

__all__ = ["toy_config"]


def toy_config(*, latent_router: int = 0, **transformer: Any) -> TokenizerConfig:
    """Its configuration; ``transformer`` says what differs there."""
    inner: dict[str, Any] = {"hidden": 24, "mlp_hidden": 32, "encoder_layers": 1,
                             "decoder_layers": 2, "heads": 2, "init_std": 0.3}  # fmt: skip
    return TokenizerConfig(
        channels=4,
        channels_mult=(1, 2, 2),
        num_res_blocks=1,
        patch_size=2,
        z_channels=16,
        levels=(8, 8, 8, 5, 5, 5),
        spatial_compression=8,
        temporal_compression=4,
        transformer=TransformerConfig(**inner | transformer),
        latent_router=latent_router,
    )
