"""The latent router against the information that it predicts: ranks and cost."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from pipelines.evaluation.analysis import Clip
from schemas.prediction import Prediction, PredictionSummary
from schemas.units import window_sum

__all__ = ["prediction_of", "spearman", "summarise_predictions"]


def spearman(first: NDArray[Any], second: NDArray[Any]) -> float | None:
    """Rank correlation of two arrays of one size, ties at their mean rank; None if one is constant.

    Raises:
        ValueError: If the sizes differ.
    """
    if first.size != second.size:
        raise ValueError(f"not pairs: {first.size} and {second.size} values")
    if first.size < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    # float16 has no ranks in scipy; float64 holds it exactly.
    pair = [values.ravel().astype(np.float64) for values in (first, second)]
    found = cast(Any, spearmanr(pair[0], pair[1]))
    return float(found.statistic)


def prediction_of(clip: Clip) -> Prediction | None:
    """What was predicted of a clip; None if nothing was."""
    predicted = clip.prediction
    if predicted is None:
        return None
    return Prediction(
        elbo=window_sum(predicted.information_thw) / clip.cells * 2.0**-24,
        spearman=spearman(predicted.information_thw, clip.information_thw),
        analyse_ms=predicted.analyse_ms,
        analyse_cpu_ms=predicted.analyse_cpu_ms,
    )


def summarise_predictions(clips: Sequence[Clip]) -> PredictionSummary | None:
    """What the predictions of all clips add up to; None if there are none."""
    pairs = [(clip, clip.prediction) for clip in clips if clip.prediction is not None]
    if not pairs:
        return None
    found = [spearman(p.information_thw, clip.information_thw) for clip, p in pairs]
    known = [value for value in found if value is not None]
    measured = [clip.information_thw.ravel() for clip, _ in pairs]
    predicted = [p.information_thw.ravel() for _, p in pairs]
    means = [np.array([np.mean(values, dtype=np.float64) for values in side])
             for side in (predicted, measured)]  # fmt: skip
    with_decoder = median(_cost(clip.analyse_ms, clip.analyse_cpu_ms) for clip, _ in pairs)
    without = median(_cost(p.analyse_ms, p.analyse_cpu_ms) for _, p in pairs)
    return PredictionSummary(
        spearman_mean=sum(known) / len(known) if known else None,
        spearman_pooled=spearman(np.concatenate(predicted), np.concatenate(measured)),
        spearman_clips=spearman(*means),
        cost_ratio=with_decoder / without,
    )


def _cost(wall_ms: float, cpu_ms: float | None) -> float:
    return wall_ms if cpu_ms is None else cpu_ms
