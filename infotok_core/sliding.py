"""A whole video through overlapping windows: the published demo's pipeline, and ours.

Shapes: T frames, H rows, W columns, C = 3 colours; lower-case t, h, w the latent grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from infotok_core.router import Strategy, num_tokens, select, select_reference, window_rates
from infotok_core.tokenizer import VideoCodec
from infotok_core.windows import (
    OverlapCounting,
    Padding,
    PaddingRule,
    blend,
    expected_elbo,
    pad,
    plan_padding,
    plan_windows,
    trim,
)

__all__ = [
    "AnalysedWindow",
    "Reconstruction",
    "SlidingRules",
    "analyse_video",
    "mean_elbo",
    "reconstruct_video",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlidingRules:
    """How a video is cut and where the published code's quirks are wanted.

    ``SlidingRules.reference(...)`` has them all; each field can be chosen alone.
    """

    window: int = 33
    overlap: int = 0
    selection: Literal["exact", "reference"] = "exact"
    padding: PaddingRule = "tail"
    padded_tokens: Literal["excluded", "reference"] = "excluded"
    """``excluded``: a token that sees padding alone is neither scored nor kept. ``reference``: it
    competes with the others (facts B3)."""
    overlap_counting: OverlapCounting = "corrected"

    @classmethod
    def reference(cls, *, window: int, overlap: int) -> Self:
        """The published pipeline, as it behaves."""
        return cls(
            window=window,
            overlap=overlap,
            selection="reference",
            padding="reference",
            padded_tokens="reference",
            overlap_counting="reference",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysedWindow:
    """One window, encoded."""

    frames: range
    padding: Padding
    codes_thw: NDArray[np.int32]
    information_thw: NDArray[np.float32]
    content: tuple[slice, slice, slice]
    """The box of positions that count, see ``padded_tokens``."""

    @property
    def elbo(self) -> np.float32:
        """Mean information over the positions that count."""
        # torch's mean, because the published rate is computed from it.
        return np.float32(torch.from_numpy(self.information_thw[self.content]).mean().item())


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstruction:
    """A video after its tokens were thinned out."""

    video_THWC: NDArray[np.uint8]
    rates: NDArray[np.float32]
    """What the router asked, for every window (the published code returns the last one's)."""
    masks: list[NDArray[np.bool_]]
    """``[t, h, w]`` of each window, True where kept."""


def analyse_video(
    tokenizer: VideoCodec, video_THWC: NDArray[np.uint8], *, rules: SlidingRules
) -> list[AnalysedWindow]:
    """Encode each window by itself; pass one and pass two both start from this."""
    return list(_analyse_windows(tokenizer, video_THWC, rules))


def mean_elbo(windows: list[AnalysedWindow], *, rules: SlidingRules, temporal: int = 4) -> float:
    """E[ELBO] of one video's windows under ``rules.overlap_counting``."""
    return expected_elbo(
        [window.information_thw[window.content] for window in windows],
        overlap=rules.overlap,
        counting=rules.overlap_counting,
        temporal=temporal,
    )


def reconstruct_video(
    tokenizer: VideoCodec,
    windows: list[AnalysedWindow],
    *,
    rules: SlidingRules,
    strategy: Strategy,
    target: float,
    expected: float | None = None,
) -> Reconstruction:
    """Select, decode, crop and cross-fade.

    Args:
        tokenizer: The one that analysed.
        windows: All windows of the video, in order.
        rules: The same as for the analysis.
        strategy: See `window_rates`.
        target: Share of tokens to keep, in (0, 1].
        expected: E[ELBO]; required by the global strategies.
    """
    elbos = np.array([window.elbo for window in windows], dtype=np.float32)
    rates = window_rates(elbos, strategy=strategy, target=target, expected=expected)
    masks: list[NDArray[np.bool_]] = []
    video: NDArray[np.uint8] | None = None
    for window, rate in zip(windows, rates, strict=True):
        masks.append(_select(window, float(rate), rules))
        decoded = tokenizer.reconstruct(
            torch.from_numpy(window.codes_thw)[None], torch.from_numpy(masks[-1])[None]
        )
        part = trim(decoded[0].cpu().numpy(), window.padding)
        video = part if video is None else _append(video, part, overlap=rules.overlap)
    if video is None:
        raise ValueError("no windows to reconstruct")
    return Reconstruction(video_THWC=video, rates=rates.astype(np.float32), masks=masks)


def _analyse_windows(
    tokenizer: VideoCodec, video_THWC: NDArray[np.uint8], rules: SlidingRules
) -> Iterator[AnalysedWindow]:
    _, height, width, _ = video_THWC.shape
    temporal = tokenizer.config.temporal_compression
    for frames in plan_windows(len(video_THWC), window=rules.window, overlap=rules.overlap):
        padding = plan_padding(len(frames), height, width, rule=rules.padding, temporal=temporal)
        padded = pad(video_THWC[frames.start : frames.stop], padding)
        analysis = tokenizer.analyse(torch.from_numpy(padded)[None])
        codes = analysis.codes_Bthw[0].cpu().numpy()
        yield AnalysedWindow(
            frames=frames,
            padding=padding,
            codes_thw=codes,
            information_thw=analysis.information_Bthw[0].cpu().numpy(),
            content=_content(padded.shape, padding, tokenizer, rules),
        )


def _content(
    padded: tuple[int, ...], padding: Padding, tokenizer: VideoCodec, rules: SlidingRules
) -> tuple[slice, slice, slice]:
    if rules.padded_tokens == "reference":
        return slice(None), slice(None), slice(None)
    frames, height, width, _ = padded
    spatial, temporal = tokenizer.config.spatial_compression, tokenizer.config.temporal_compression
    # Latent frame k ends with frame k * temporal.
    first, last = -(-padding.front // temporal), -(-(frames - padding.back - 1) // temporal)
    return (
        slice(first, last + 1),
        slice(padding.top // spatial, -(-(height - padding.bottom) // spatial)),
        slice(padding.left // spatial, -(-(width - padding.right) // spatial)),
    )


def _select(window: AnalysedWindow, rate: float, rules: SlidingRules) -> NDArray[np.bool_]:
    mask = np.zeros(window.information_thw.shape, dtype=np.bool_)
    scored = window.information_thw[window.content]
    if rules.selection == "reference":
        mask[window.content] = select_reference(scored, rate)
    else:
        mask[window.content] = select(scored, num_tokens(rate, scored.size))
    return mask


def _append(
    video_THWC: NDArray[np.uint8], part_THWC: NDArray[np.uint8], *, overlap: int
) -> NDArray[np.uint8]:
    if not overlap:
        return np.concatenate([video_THWC, part_THWC])
    seam = blend(video_THWC[-overlap:], part_THWC[:overlap])
    return np.concatenate([video_THWC[:-overlap], seam, part_THWC[overlap:]])
