"""What a training run is: stages of fixed shape, as frozen, validated data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from infotok_core.numbers_in_range import require_at_least, require_finite, require_positive
from infotok_core.router import MIN_RATE, Selection

__all__ = ["Part", "Router", "Stage", "stage_from_dict", "stage_to_dict"]

Part = Literal["all", "base", "compressor", "latent_router"]
"""What a stage trains. ``base``: the fixed-rate tokenizer alone, nothing compressed or dropped.
``compressor``: compressor and decompressor on top of a base that stays as it is (the plug-in).
``all``: everything. ``latent_router``: only the head that predicts the information from latents,
towards the information that the frozen rest measures."""

Router = Literal["flex", "elbo", "static", "uniform"]
"""Share of tokens each clip keeps. ``flex``: beta, drawn from ``rates``. ``elbo``: beta times the
clip's ELBO over its running mean (paper, equation 4), clipped. ``static``: always ``rates[0]``.
``uniform``: drawn from [min_rate, 1], as ElasticTok trains."""


_SEEDS = 1 << 63


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of training: fixed shapes, one learning-rate cycle.

    Raises:
        ValueError: On values that cannot be trained with; see the message.
    """

    steps: int
    """Optimisation steps; the learning rate falls along a cosine to their end."""
    frames: int = 17
    """Frames of a window: 1 + 4k."""
    crop: int = 128
    """Side of the square crops, in pixels."""
    batch_size: int = 32
    """Clips of a step, over all devices together."""
    part: Part = "all"
    router: Router = "flex"
    rates: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25)
    """Values of beta, drawn uniformly for each clip. The ``elbo`` router takes values above 1, too:
    beta = 4 keeps everything of all clips but the easiest, which would else never be seen whole."""
    min_rate: float = MIN_RATE
    elbo_decay: float = 0.99
    """Of the running mean E[ELBO] (paper: 0.99)."""
    selection: Selection = "information"
    l1_weight: float = 1.0
    mse_weight: float = 0.0
    log_mse_weight: float = 0.0
    """Of the logarithm of each clip's squared error: all clips count alike, the easy ones too, as
    they do in a mean of PSNRs."""
    perceptual_weight: float = 0.0
    """Needs weights that the user supplies."""
    latent_router_weight: float = 0.0
    """Of the latent router's loss beside the others, in part ``all``: the encoder then learns to
    carry what the head needs."""
    code_weight: float = 0.0
    """Mean distance of the decompressed codes from the base's own; on a base of programs, whose
    decoder may have no gradient (`code_space`)."""
    seam_weight: float = 0.0
    """Pulls two windows of a clip together where they overlap, so that seams do not show."""
    seam_frames: int = 0
    """Frames of that overlap; a training clip is then two windows less the overlap."""
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    final_learning_rate: float = 0.02
    """Where the cosine ends, as a share of ``learning_rate``."""
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    """Of the averaged weights, which are the ones to keep."""
    zoom_share: float = 0.0
    """Probability that the clips of a step are cut larger and scaled down."""
    zoom_max: float = 2.0
    """How many times larger at most."""
    log_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        require_finite(self, *(f.name for f in fields(self) if f.type == "float"))
        require_at_least(1, self, "steps", "frames", "crop", "batch_size", "log_every")
        require_at_least(0, self, "warmup_steps", "weight_decay")
        require_positive(self, "learning_rate", "clip_norm")
        if not 0 <= self.final_learning_rate <= 1:
            raise ValueError(
                f"final_learning_rate must lie in [0, 1], as a share of learning_rate, not "
                f"{self.final_learning_rate}"
            )
        if not -_SEEDS <= self.seed < _SEEDS:
            raise ValueError(f"seed must lie in -2**63 .. 2**63 - 1, not {self.seed}")
        self._check_rates()
        self._check_losses()

    def _check_rates(self) -> None:
        most = math.inf if self.router == "elbo" else 1
        if not all(map(math.isfinite, self.rates)):
            raise ValueError(f"rates must be finite numbers, not {self.rates}")
        if not self.rates or not all(0 < rate <= most for rate in self.rates):
            raise ValueError(f"rates must lie in (0, {most}], not {self.rates}")
        if not 0 < self.min_rate <= 1:
            raise ValueError(f"min_rate must lie in (0, 1], not {self.min_rate}")
        if not 0 <= self.elbo_decay < 1 or not 0 <= self.ema_decay < 1:
            raise ValueError("elbo_decay and ema_decay must lie in [0, 1)")

    def _check_losses(self) -> None:
        weights = (
            self.l1_weight, self.mse_weight, self.log_mse_weight, self.perceptual_weight,
            self.code_weight,
        )  # fmt: skip
        if not any(weights) or min(*weights, self.seam_weight, self.latent_router_weight) < 0:
            raise ValueError(f"loss weights must be >= 0 and one of them > 0: {weights}")
        if self.latent_router_weight and self.part != "all":
            raise ValueError("latent_router_weight goes with part = all")
        if (self.seam_weight > 0) != (self.seam_frames > 0):
            raise ValueError("seam_weight and seam_frames go together: both > 0, or neither")
        if not 0 <= self.seam_frames < self.frames:
            raise ValueError(
                f"seam_frames must lie in [0, frames = {self.frames}), not {self.seam_frames}"
            )

    @property
    def clip_frames(self) -> int:
        """Frames a training clip needs."""
        return 2 * self.frames - self.seam_frames if self.seam_frames else self.frames


def stage_from_dict(document: Mapping[str, Any]) -> Stage:
    """Read a stage from plain data.

    Raises:
        ValueError: On unknown keys, naming them, and on values that do not fit.
    """
    known = {field.name for field in fields(Stage)}
    unknown = sorted(set(document) - known)
    if unknown:
        raise ValueError(f"unknown keys {unknown}; known are {sorted(known)}")
    values: dict[str, Any] = {key: _checked(key, value) for key, value in document.items()}
    _check_choice("part", values, ("all", "base", "compressor", "latent_router"))
    _check_choice("router", values, ("flex", "elbo", "static", "uniform"))
    _check_choice("selection", values, ("information", "r2l", "jump"))
    try:
        return Stage(**values)
    except TypeError as error:
        raise ValueError(str(error).replace("Stage.__init__()", "a stage")) from error


def _checked(key: str, value: object) -> object:
    """The value if it is of the key's kind; a list of rates as a tuple."""
    kind = next(field.type for field in fields(Stage) if field.name == key)
    if key == "rates":
        if not isinstance(value, list | tuple) or not all(map(_is_number, value)):
            raise ValueError(f"rates must be a list of numbers, not {value!r}")
        return tuple(value)
    if kind == "int" and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError(f"{key} must be a whole number, not {value!r}")
    if kind == "float" and not _is_number(value):
        raise ValueError(f"{key} must be a number, not {value!r}")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_choice(key: str, values: Mapping[str, Any], choices: tuple[str, ...]) -> None:
    if key in values and values[key] not in choices:
        raise ValueError(f"{key} must be one of {', '.join(choices)}, not {values[key]!r}")


def stage_to_dict(stage: Stage) -> dict[str, Any]:
    """Plain data, as it is stored beside the weights."""
    return {**asdict(stage), "rates": list(stage.rates)}
