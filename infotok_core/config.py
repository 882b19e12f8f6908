"""The shape of a network, as frozen data, and the shapes we have names for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from infotok_core.numbers_in_range import require_at_least, require_positive

__all__ = [
    "TokenizerConfig",
    "TransformerConfig",
    "from_dict",
    "from_reference_dict",
    "mini",
    "published",
    "to_dict",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig:
    """The adaptive compressor and decompressor (paper section 3.2): two stacks of one layer kind.

    Raises:
        ValueError: If the heads do not divide the width into multiples of 4 (the rotary embedding
            turns pairs, and needs as many for rows as for columns).
    """

    hidden: int
    """Width of a token. Other than ``z_channels`` it brings two linear maps in and out."""
    mlp_hidden: int
    encoder_layers: int
    decoder_layers: int
    heads: int
    theta: float = 10000.0
    """Base of the rotary frequencies."""
    norm_eps: float = 1e-5
    init_std: float = 0.02
    max_frames: int = 49
    """Latent frames that have a learned embedding: 193 video frames at temporal compression 4."""
    max_positions: int = 96
    """Latent rows and columns the rotary table reaches: 768 pixels at spatial compression 8."""
    double_projection: bool = True
    """Apply the input projection twice, as the published weights expect (facts B1)."""
    mask_embedding: bool = False
    """Tell the decompressor which positions were dropped, by a learned vector in their place. The
    published network cannot tell a dropped position from the code 0 (facts section 0, D3)."""
    budget_aware: bool = False
    """Tell the compressor which positions will be dropped, and how many, as the paper's text has it
    (the published code does not, facts D3). Tokens then depend on the rate: those of another one
    need the network again."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "hidden", "mlp_hidden", "heads", "max_frames", "max_positions")
        require_at_least(0, self, "encoder_layers", "decoder_layers")
        require_positive(self, "theta", "norm_eps", "init_std")
        if self.hidden % self.heads or (self.hidden // self.heads) % 4:
            raise ValueError(
                f"hidden {self.hidden} over {self.heads} heads: "
                "the channels of a head must be a multiple of 4"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerConfig:
    """A member of the family: factorised causal CNN, FSQ, and optionally the two transformers.

    Raises:
        ValueError: If the sizes do not fit each other; see the message.
    """

    channels: int
    channels_mult: tuple[int, ...]
    """Channels of each level, in units of ``channels``."""
    num_res_blocks: int
    patch_size: int
    """Edge of the Haar patch in time, height and width; a power of two."""
    z_channels: int
    """Channels of the continuous latent."""
    levels: tuple[int, ...]
    """Values per code channel; their product is the size of the codebook."""
    spatial_compression: int
    temporal_compression: int
    transformer: TransformerConfig | None
    """None: the plain base tokenizer."""
    latent_router: int = 0
    """Width of the head that predicts the information from the latent; 0: there is none."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "channels", "z_channels")
        require_at_least(0, self, "num_res_blocks", "latent_router")
        for name in ("patch_size", "spatial_compression", "temporal_compression"):
            value = getattr(self, name)
            if value < 1 or value & (value - 1):
                raise ValueError(f"{name} must be a power of two, not {value}")
        if self.patch_size > min(self.spatial_compression, self.temporal_compression):
            raise ValueError(
                f"patch_size {self.patch_size} exceeds the compression "
                f"{self.temporal_compression}x{self.spatial_compression}"
            )
        if not self.levels or min(self.levels) < 2:
            raise ValueError(f"each FSQ level needs at least two values: {self.levels}")
        if min(self.channels_mult, default=0) < 1:
            cause = "the network needs a level, and each at least 1"
            raise ValueError(f"channels_mult {self.channels_mult}: {cause}")
        self._check_resampling()

    def _check_resampling(self) -> None:
        down = [self.downsampling(level) for level in range(len(self.channels_mult))]
        up = [self.upsampling(level) for level in range(len(self.channels_mult))]
        wanted = (self.num_temporal_steps, self.num_spatial_steps)
        for steps in (down, up):
            if (sum(t for t, _ in steps), sum(s for _, s in steps)) != wanted:
                raise ValueError(
                    f"{len(self.channels_mult)} levels cannot give {wanted[0]} temporal and "
                    f"{wanted[1]} spatial steps after a patch of {self.patch_size}"
                )

    @property
    def num_spatial_steps(self) -> int:
        """Halvings of height and width left to the CNN after patching."""
        return int(math.log2(self.spatial_compression // self.patch_size))

    @property
    def num_temporal_steps(self) -> int:
        """Halvings of time left to the CNN after patching."""
        return int(math.log2(self.temporal_compression // self.patch_size))

    @property
    def embedding_dim(self) -> int:
        """Channels of a code vector: one for each FSQ level."""
        return len(self.levels)

    @property
    def codebook_size(self) -> int:
        """Number of distinct tokens; indices run from 0 to this minus one."""
        return math.prod(self.levels)

    def downsampling(self, level: int) -> tuple[bool, bool]:
        """Whether the encoder halves (time, space) after ``level``."""
        last = level == len(self.channels_mult) - 1
        return (
            level < self.num_temporal_steps and not last,
            level < self.num_spatial_steps and not last,
        )

    def upsampling(self, level: int) -> tuple[bool, bool]:
        """Whether the decoder doubles (time, space) after ``level``.

        Not the mirror of `downsampling`: time is doubled one level later, as published.
        """
        reverse = len(self.channels_mult) - 1 - level
        temporal = 0 < reverse < self.num_temporal_steps + 1
        spatial = temporal or (
            reverse < self.num_spatial_steps and self.num_spatial_steps > self.num_temporal_steps
        )
        return temporal, spatial


def published() -> TokenizerConfig:
    """The published network ``OURS4x8x8-mse-256p-88``: 123,142,646 parameters."""
    return TokenizerConfig(
        channels=128,
        channels_mult=(2, 4, 4),
        num_res_blocks=2,
        patch_size=2,
        z_channels=256,
        levels=(8, 8, 8, 5, 5, 5),
        spatial_compression=8,
        temporal_compression=4,
        transformer=TransformerConfig(
            hidden=256, mlp_hidden=512, encoder_layers=8, decoder_layers=8, heads=32
        ),
    )


def mini() -> TokenizerConfig:
    """A small member with the published codebook and compression, for CPUs and laptops."""
    return TokenizerConfig(
        channels=64,
        channels_mult=(1, 2),
        num_res_blocks=2,
        patch_size=4,
        z_channels=128,
        levels=(8, 8, 8, 5, 5, 5),
        spatial_compression=8,
        temporal_compression=4,
        transformer=TransformerConfig(
            hidden=128,
            mlp_hidden=256,
            encoder_layers=2,
            decoder_layers=2,
            heads=4,
            double_projection=False,
        ),
    )


# Choices that format version 1 did not have at first: written only where they are made, so that
# the fingerprint of a network that does not use them stays what it was.
_LATER = {"mask_embedding": False, "budget_aware": False, "latent_router": 0}


def to_dict(config: TokenizerConfig) -> dict[str, Any]:
    """Plain JSON data; `from_dict` is the inverse."""
    document = _without_later(asdict(config))
    if config.transformer is not None:
        document["transformer"] = _without_later(document["transformer"])
    document["channels_mult"] = list(config.channels_mult)
    document["levels"] = list(config.levels)
    return document


def _without_later(document: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in document.items() if k not in _LATER or v != _LATER[k]}


def from_dict(document: Mapping[str, Any]) -> TokenizerConfig:
    """Read what `to_dict` wrote.

    Raises:
        ValueError: On a missing or unknown key, or sizes that do not fit each other.
    """
    values = dict(document)
    _require_keys(values, TokenizerConfig)
    if values["transformer"] is not None:
        inner = dict(values["transformer"])
        _require_keys(inner, TransformerConfig)
        values["transformer"] = TransformerConfig(**inner)
    values["channels_mult"] = tuple(values["channels_mult"])
    values["levels"] = tuple(values["levels"])
    return TokenizerConfig(**values)


def _require_keys(values: Mapping[str, Any], kind: type) -> None:
    names = {field.name for field in fields(kind)}
    wrong = {"missing": names - set(_LATER) - set(values), "unknown": set(values) - names}
    said = [f"{what} keys {sorted(keys)}" for what, keys in wrong.items() if keys]
    if said:
        raise ValueError(f"{kind.__name__}: {', '.join(said)}")


# Choices of the published code that its released model leaves alone; any other value is another
# network than the one implemented here.
_REFERENCE_CONSTANTS: Mapping[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "patch_method": "haar",
    "z_factor": 1,
    "num_groups": 1,
    "legacy_mode": False,
    "quantizer": "FSQ",
    "encoder": "FACTORIZED",
    "decoder": "FACTORIZED",
}
_REFERENCE_TRANSFORMER_CONSTANTS: Mapping[str, Any] = {
    "switch_rotary_to_1d": 1.0,
    "concat_decode_2d": False,
    "special_attn": False,
    "method": "mse",
}
# No influence on inference: dropout, names, and training choices.
_REFERENCE_IGNORED = frozenset({"name", "dropout", "rate_strategy", "freeze_original", "use_vit"})


def from_reference_dict(document: Mapping[str, Any]) -> TokenizerConfig:
    """Read a configuration in the layout of the published code (as beside the golden arrays).

    Raises:
        ValueError: On a choice that this implementation does not have, naming it.
    """
    rest = {k: v for k, v in document.items() if k not in _REFERENCE_IGNORED}
    _take_constants(rest, _REFERENCE_CONSTANTS)
    inner: Mapping[str, Any] | None = rest.pop("vit_config", None)
    if not document.get("use_vit", inner is not None):
        inner = None
    resolution, attended = rest.pop("resolution", 0), rest.pop("attn_resolutions", ())
    if rest.pop("embedding_dim", len(rest["levels"])) != len(rest["levels"]):
        raise ValueError(f"embedding_dim differs from the number of levels {rest['levels']}")
    config = from_dict(
        {**rest, "transformer": None if inner is None else _reference_transformer(inner)}
    )
    reached = [
        resolution // config.patch_size >> level for level in range(len(config.channels_mult))
    ]
    if set(reached) & set(attended):
        raise ValueError(
            f"attention inside the levels (resolutions {sorted(set(reached) & set(attended))}) "
            "is not implemented: the published network has it in the middle alone"
        )
    return config


def _reference_transformer(document: Mapping[str, Any]) -> dict[str, Any]:
    rest = dict(document)
    _take_constants(rest, _REFERENCE_TRANSFORMER_CONSTANTS)
    rest.pop("max_sequence_length_1d", None)
    renamed = {
        "hidden_size": "hidden",
        "intermediate_size": "mlp_hidden",
        "num_encoder_layers": "encoder_layers",
        "num_decoder_layers": "decoder_layers",
        "num_attention_heads": "heads",
        "rms_norm_eps": "norm_eps",
        "initializer_range": "init_std",
        "max_num_video_frames": "max_frames",
        "max_sequence_length": "max_positions",
    }
    return {renamed.get(k, k): v for k, v in rest.items()} | {"double_projection": True}


def _take_constants(rest: dict[str, Any], constants: Mapping[str, Any]) -> None:
    for key, wanted in constants.items():
        value = rest.pop(key, wanted)
        if value != wanted:
            raise ValueError(f"{key} = {value!r} is not implemented, only {wanted!r}")
