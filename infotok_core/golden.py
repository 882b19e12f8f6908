"""Golden sets of the published implementation: reading them, and computing the same quantities.

A set is three files of one prefix: ``.json`` (configuration in the published layout, and ``meta``),
``.safetensors`` (weights), ``.npz`` (arrays by name).

Shapes: B videos, C channels, T frames, H rows, W columns; lower-case t, h, w the latent grid.
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infotok_core.checkpoint import Checkpoint, fingerprint, load_parameters
from infotok_core.config import from_reference_dict
from infotok_core.errors import CheckpointError
from infotok_core.information import token_information
from infotok_core.network import Network
from infotok_core.patching import haar_matrix, patch
from infotok_core.router import (
    Strategy,
    select_reference,
    training_mask,
    training_ratios,
    window_rates,
)
from infotok_core.sliding import (
    AnalysedWindow,
    Reconstruction,
    SlidingRules,
    analyse_video,
    reconstruct_video,
)
from infotok_core.tokenizer import Tokenizer, from_uint8
from infotok_core.weight_files import read_tensors

__all__ = ["Golden", "GoldenClip", "Selected", "read_golden"]

_T = TypeVar("_T")

# The rates that the published evaluation numbers by `n_tries`, as its training draws them.
_TRY_RATES = (1.0, 0.75, 0.5, 0.25)


@dataclass(kw_only=True)
class Selected:
    """One clip at one rate, by the published rules."""

    rate: Tensor
    mask: Tensor
    count_per_frame: Tensor
    masked_codes: Tensor
    decompressor_out: Tensor
    recon: Tensor


@dataclass(kw_only=True)
class GoldenClip:
    """Every intermediate of one clip at full rate, under its golden name."""

    network: Network
    video: Tensor

    @cached_property
    def stages(self) -> dict[str, Tensor]:
        """All stages up to the full-rate reconstruction."""
        net, x = self.network, self.video
        enc_h = net.encode(x)
        compressor_out = net.compress(enc_h)
        quantized = net.quantize(compressor_out)
        post_quant = net.embed(quantized.codes_BCTHW)
        decompressor_out = net.decompress(post_quant)
        base_recon = net.decode(decompressor_out)
        config = net.config
        return {
            "patched_t0": patch(x, haar_matrix(config.patch_size)),
            "enc_h": enc_h,
            "compressor_out": compressor_out,
            "prequant": net.quant_conv(compressor_out),
            "fsq_idx": quantized.indices_BTHW,
            "codes": quantized.codes_BCTHW,
            "post_quant": post_quant,
            "decompressor_out_full": decompressor_out,
            "base_recon": base_recon,
            "elbo_tok": token_information(
                x,
                base_recon,
                temporal=config.temporal_compression,
                spatial=config.spatial_compression,
            ),
        }

    def select(self, strategy: str, target: float, *, expected: float | None) -> Selected:
        """Keep tokens by the published rules and decode what is left."""
        information = self.stages["elbo_tok"]
        elbos_B = information.mean(dim=(1, 2, 3)).numpy()
        rates = window_rates(
            elbos_B, strategy=_published_strategy(strategy), target=target, expected=expected
        )
        masks = [
            select_reference(e.numpy(), float(rate))
            for e, rate in zip(information, rates, strict=True)
        ]
        mask = torch.from_numpy(np.stack(masks))
        codes = self.stages["codes"] * mask.unsqueeze(1)
        inner = self.network.decompress(self.network.embed(codes))
        return Selected(
            rate=torch.from_numpy(rates),
            mask=mask,
            count_per_frame=mask.sum(dim=(2, 3)),
            masked_codes=codes,
            decompressor_out=inner,
            recon=self.network.decode(inner),
        )

    def train(self, beta: float) -> dict[str, Tensor]:
        """The training-time selection."""
        information = self.stages["elbo_tok"]
        ratios = training_ratios(information, torch.full((len(information),), beta))
        kept = training_mask(information, ratios).sum(dim=(1, 2, 3))
        return {"alloc_per_frame": ratios, "kept": kept}


@dataclass(kw_only=True)
class Golden:
    """A golden set, with what this implementation makes of each of its arrays."""

    tokenizer: Tokenizer
    arrays: Mapping[str, NDArray[Any]]
    meta: Mapping[str, Any]
    legend: Mapping[str, str]
    _memo: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def is_input(self, name: str) -> bool:
        """Whether an array is a video, not a result."""
        return name == "pipe.input_u8" or name.endswith((".video", ".video_u8"))

    @torch.inference_mode()
    def compute(self, name: str) -> NDArray[Any] | None:
        """Our value of a golden array; None if its name means nothing here."""
        stem, stride = name, 1
        if match := re.fullmatch(r"(.+)_sub(\d+)", name):
            stem, stride = match[1], int(match[2])
        if stem.startswith("pipe."):
            value = self._pipe(stem.removeprefix("pipe."))
        else:
            value = self._clip_value(*stem.split(".", 1)) if "." in stem else None
        if value is None:
            return None
        result = value.numpy() if isinstance(value, Tensor) else value
        if stem.endswith(".patched_t0"):
            result = result[:, :, : self.arrays[name].shape[2]]
        return result[..., ::stride, ::stride] if stride > 1 else result

    def _clip_value(self, clip_name: str, what: str) -> Tensor | None:
        clip = self._remember(clip_name, lambda: self._clip(clip_name))
        if clip is None:
            return None
        if match := re.fullmatch(r"train_path\.([\d.]+)\.(kept|alloc_per_frame)", what):
            return clip.train(float(match[1]))[match[2]]
        if match := re.fullmatch(r"forward_eval_n_tries(\d+)\.alloc", what):
            return clip.train(_TRY_RATES[int(match[1])])["alloc_per_frame"]
        if match := re.fullmatch(r"(\w+)\.(\d+(?:\.\d+)?)\.(\w+)", what):
            strategy, rate, part = match[1], float(match[2]), match[3]
            selected = self._remember(
                f"{clip_name}.{strategy}.{rate}",
                lambda: clip.select(strategy, rate, expected=self.meta.get("elbo_mean")),
            )
            return getattr(selected, part) if part in Selected.__annotations__ else None
        return clip.stages.get(what)

    def _clip(self, name: str) -> GoldenClip | None:
        if f"{name}.video" in self.arrays:
            video = torch.from_numpy(self.arrays[f"{name}.video"].astype(np.float32))
        elif f"{name}.video_u8" in self.arrays:
            frames = torch.from_numpy(self.arrays[f"{name}.video_u8"])
            video = from_uint8(frames if frames.dim() == 5 else frames[None])
        else:
            return None
        return GoldenClip(network=self.tokenizer.network, video=video)

    def _pipe(self, what: str) -> NDArray[Any] | None:
        rules = self._pipe_rules()
        if rules is None or "pipe.input_u8" not in self.arrays:
            return None
        videos = list(self.arrays["pipe.input_u8"])
        analysed: list[list[AnalysedWindow]] = self._remember(
            "pipe", lambda: [analyse_video(self.tokenizer, v, rules=rules) for v in videos]
        )
        if what == "elbos":
            return np.array([window.elbo for windows in analysed for window in windows])
        match = re.fullmatch(r"(\w+)\.([\d.]+)\.(out_u8|rates)", what)
        if not match:
            return None
        done: list[Reconstruction] = self._remember(
            f"pipe.{match[1]}.{match[2]}",
            lambda: [
                reconstruct_video(
                    self.tokenizer,
                    windows,
                    rules=rules,
                    strategy=_published_strategy(match[1]),
                    target=float(match[2]),
                    expected=self.meta.get("pipe.elbo_mean"),
                )
                for windows in analysed
            ],
        )
        return np.stack([r.rates if match[3] == "rates" else r.video_THWC for r in done])

    def _pipe_rules(self) -> SlidingRules | None:
        text = self.legend.get("pipe.*", "")
        match = re.search(r"window (\d+), overlap (\d+)", text)
        window = self.meta.get("pipe.window", match and int(match[1]))
        overlap = self.meta.get("pipe.overlap", match and int(match[2]))
        if window is None or overlap is None:
            return None
        return SlidingRules.reference(window=int(window), overlap=int(overlap))

    def _remember(self, key: str, make: Callable[[], _T]) -> _T:
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]


def read_golden(prefix: str | Path) -> Golden:
    """Read ``PREFIX.json``, ``PREFIX.safetensors`` and ``PREFIX.npz`` and build the network.

    Raises:
        CheckpointError: If a file is absent or damaged, or the weights are of another network.
        ValueError: If the configuration asks for what is not implemented.
    """
    paths = {suffix: Path(f"{prefix}.{suffix}") for suffix in ("json", "safetensors", "npz")}
    for path in paths.values():
        if not path.is_file():
            raise CheckpointError(str(path), "does not exist: a golden set has three files")
    document = _document(paths["json"])
    with torch.device("meta"):
        network = Network(from_reference_dict(document["config"]))
    tensors = read_tensors(paths["safetensors"])
    ema_loss = load_parameters(network, tensors, source=str(paths["safetensors"]))
    checkpoint = Checkpoint(network=network, fingerprint=fingerprint(network), ema_loss=ema_loss)
    try:
        with np.load(paths["npz"]) as arrays:
            loaded = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise CheckpointError(str(paths["npz"]), f"cannot be read: {error}") from error
    return Golden(
        tokenizer=Tokenizer(checkpoint),
        arrays=loaded,
        meta=document["meta"],
        legend=document.get("legend", {}),
    )


def _document(path: Path) -> dict[str, Any]:
    try:
        document: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(str(path), f"cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise CheckpointError(str(path), "is no JSON object")
    for name in ("config", "meta"):
        if name not in document:
            raise CheckpointError(str(path), f"has no {name!r}")
    return cast("dict[str, Any]", document)


def _published_strategy(name: str) -> Strategy:
    # The published code treats every name but the two global ones as static (facts section 3).
    if name == "global_elbo" or name == "global_elbo_bin":
        return name
    return "static"
