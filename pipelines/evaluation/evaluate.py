"""The evaluation from first to last: analyse, route, measure, look back, add up."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.analyser import VideoTokenizer
from pipelines.evaluation.analysis import Clip, analyse_clips
from pipelines.evaluation.clips import ClipSource
from pipelines.evaluation.hindsight import hindsight_assignments
from pipelines.evaluation.measuring import (
    Features,
    Measured,
    Measurer,
    Metrics,
    Pending,
    is_budget_aware,
)
from pipelines.evaluation.prediction import summarise_predictions
from pipelines.evaluation.report import clip_report, outcome_of
from pipelines.evaluation.routing import (
    Assignment,
    PointKey,
    grid_tokens,
    point_key,
    routed_assignments,
)
from pipelines.evaluation.settings import Clocks, EvaluatedTokenizer, EvaluationConfig, Say
from pipelines.evaluation.ssim_pool import SsimPool
from pipelines.evaluation.visiting import visit_clips
from schemas.evaluation import ClipReport, LeftOut, Outcome, Point
from schemas.prediction import PredictionSummary

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What was found; the caller adds who, where and when."""

    clips: tuple[ClipReport, ...]
    outcomes: tuple[Outcome, ...]
    left_out: tuple[LeftOut, ...]
    prediction: PredictionSummary | None = None


def evaluate(
    source: ClipSource,
    tokenizer: EvaluatedTokenizer,
    config: EvaluationConfig,
    *,
    metrics: Metrics,
    workers: int,
    clocks: Clocks,
    say: Say,
    predictor: VideoTokenizer | None = None,
) -> Evaluation:
    """Measure a tokenizer on the clips of a source.

    Every clip is analysed once and decoded once per selection and number of tokens, whoever asks
    for it. Nothing is interpolated but the bound of the optimal allocation, which says so.

    Args:
        source: Entered by the caller.
        tokenizer: Any with the public interface.
        config: What to look at.
        metrics: What to measure beside PSNR and SSIM.
        workers: Processes that compute SSIM; 0: this one does. No result depends on it.
        clocks: For latencies.
        say: Takes progress.
        predictor: The tokenizer with its latent router, to be compared; None: it is not.

    Raises:
        PipelineError: If there is no clip, the tokenizer does not take them, or a video changes.
        WeightsError: If the network for FVD turns out to be another one.
    """
    clips, left_out = analyse_clips(
        source, tokenizer, config, clocks=clocks, say=say, predictor=predictor
    )
    assignments = routed_assignments(clips, config)
    grid = config.sweep == "full" or bool(config.search_psnr_db)
    work = _Work(clips, assignments, config, grid=grid)
    with SsimPool(workers, clocks.wall) as pool:
        measurer = Measurer(
            tokenizer, metrics, batch_size=config.batch_size, pool=pool, clocks=clocks
        )
        visit = functools.partial(work.measure, measurer)
        visit_clips(source, clips, visit, clock=clocks.wall, say=say)
        measured = work.finish()
    if grid:
        assignments += hindsight_assignments(clips, _points(measured), assignments, config)
    return Evaluation(
        clips=tuple(map(clip_report, clips, measured)),
        outcomes=_outcomes(assignments, clips, measured, work.features, tokenizer),
        left_out=tuple(left_out),
        prediction=summarise_predictions(clips),
    )


def _outcomes(
    assignments: Sequence[Assignment],
    clips: Sequence[Clip],
    measured: Sequence[Mapping[PointKey, Measured]],
    features: Sequence[Features | None],
    tokenizer: EvaluatedTokenizer,
) -> tuple[Outcome, ...]:
    """What each assignment comes to, the highest rate first."""
    outcome = functools.partial(
        outcome_of,
        num_codes=tokenizer.config.codebook_size,
        compress_passes=2 if is_budget_aware(tokenizer) else 1,
    )
    in_order = sorted(assignments, key=lambda item: -(item.rate_target or 0))
    return tuple(outcome(item, clips, measured, features) for item in in_order)


class _Work:
    """Which decodes of each clip are wanted, and what has come of them."""

    def __init__(
        self,
        clips: Sequence[Clip],
        assignments: Sequence[Assignment],
        config: EvaluationConfig,
        *,
        grid: bool,
    ) -> None:
        self._places = {clip.key: place for place, clip in enumerate(clips)}
        self._measure_all = config.measure_all
        # Points that a router asked for are looked at closely.
        self._closely: list[set[PointKey]] = [
            {point_key(clip, item.selection, item.num_tokens[place]) for item in assignments}
            for place, clip in enumerate(clips)
        ]
        self._grid: list[set[PointKey]] = [
            {point_key(clip, config.grid_selection, count) for count in grid_tokens(clip, config)}
            if grid
            else set()
            for clip in clips
        ]
        self._pending: list[dict[PointKey, Pending]] = [{} for _ in clips]
        self.features: list[Features | None] = [None] * len(clips)

    def measure(self, measurer: Measurer, clip: Clip, frames_THWC: NDArray[np.uint8]) -> None:
        """Decode a clip at every point that is wanted of it."""
        place = self._places[clip.key]
        close = self._closely[place]
        self.features[place] = measurer.features(frames_THWC)
        self._pending[place] = measurer.measure(
            clip,
            frames_THWC,
            close | self._grid[place],
            closely=lambda key: self._measure_all or key in close,
        )

    def finish(self) -> list[dict[PointKey, Measured]]:
        """What has come of each clip; waits for what is still being compared."""
        return [{key: item.result() for key, item in mine.items()} for mine in self._pending]


def _points(measured: Sequence[Mapping[PointKey, Measured]]) -> list[dict[PointKey, Point]]:
    """What is reported of the decodes of each clip."""
    return [{key: item.point for key, item in mine.items()} for mine in measured]
