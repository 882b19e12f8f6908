"""What the decodes of an assignment add up to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from statistics import median
from typing import Any

import numpy as np

from infotok_core.metrics import frechet_distance, psnr_db
from pipelines.evaluation.analysis import Clip
from pipelines.evaluation.measuring import Features, Measured
from pipelines.evaluation.prediction import prediction_of
from pipelines.evaluation.routing import Assignment, PointKey, point_key
from schemas.evaluation import ClipReport, Outcome, Point
from schemas.tokens import bpp16

__all__ = ["clip_report", "outcome_of"]

_COLOURS = 3


def clip_report(clip: Clip, measured: Mapping[PointKey, Measured]) -> ClipReport:
    """A clip and its decodes."""
    frames, height, width = clip.shape
    return ClipReport(
        source=clip.source,
        window_index=clip.span.window_index,
        start_time_s=clip.span.start_time_s,
        end_time_s=clip.span.end_time_s,
        frames=frames,
        height=height,
        width=width,
        cells=clip.cells,
        elbo=clip.information_sum / clip.cells * 2.0**-24,
        analyse_ms=clip.analyse_ms,
        analyse_cpu_ms=clip.analyse_cpu_ms,
        points=tuple(measured[key].point for key in sorted(measured)),
        prediction=prediction_of(clip),
    )


def outcome_of(
    assignment: Assignment,
    clips: Sequence[Clip],
    measured: Sequence[Mapping[PointKey, Measured]],
    sources: Sequence[Features | None],
    *,
    num_codes: int,
    compress_passes: int = 1,
) -> Outcome:
    """The numbers of one assignment; every clip weighs the same, but for the pooled error.

    Args:
        assignment: Whose points have been measured.
        clips: In order.
        measured: Of each clip.
        sources: Features of each clip's own frames; None without a network for them.
        num_codes: Size of the codebook.
        compress_passes: Encoder passes of a clip that drops tokens: 2 if its compressor has to see
            which.
    """
    chosen = [
        mine[point_key(clip, assignment.selection, count)]
        for clip, mine, count in zip(clips, measured, assignment.num_tokens, strict=True)
    ]
    points = [item.point for item in chosen]
    pixels = sum(math.prod(clip.shape) for clip in clips)
    tokens, cells = sum(assignment.num_tokens), sum(clip.cells for clip in clips)
    times = _times(assignment, clips, measured)
    return Outcome(
        **_decided(assignment, clips, compress_passes),
        rate=tokens / cells,
        bpp16=bpp16(tokens, cells, pixels, num_codes=num_codes),
        bpp16_without_mask=bpp16(tokens, 0, pixels, num_codes=num_codes),
        psnr_db=_mean(point.psnr_db for point in points),
        psnr_pooled_db=psnr_db(sum(point.squared_error for point in points), pixels * _COLOURS),
        psnr_frames_db=_frame_mean(clips, points),
        ssim=_optional(_mean, (point.ssim for point in points)),
        lpips=_optional(_mean, (point.lpips for point in points)),
        fvd=_fvd(sources, [item.features for item in chosen]),
        tokenise_ms=median(wall_ms for wall_ms, _ in times),
        tokenise_cpu_ms=_optional(median, (cpu_ms for _, cpu_ms in times)),
        reconstruct_ms=median(point.reconstruct_ms for point in points),
        reconstruct_cpu_ms=_optional(median, (point.reconstruct_cpu_ms for point in points)),
    )


def _times(
    assignment: Assignment,
    clips: Sequence[Clip],
    measured: Sequence[Mapping[PointKey, Measured]],
) -> list[tuple[float, float | None]]:
    """Milliseconds that each clip takes to its tokens: by the clock, and of the CPU."""
    if assignment.selection == "latent":
        return [_predict_ms(clip) for clip in clips]
    return [
        _tokenise_ms(clip, passes, [item.point for item in mine.values()])
        for clip, passes, mine in zip(clips, assignment.decoder_passes, measured, strict=True)
    ]


def _decided(assignment: Assignment, clips: Sequence[Clip], passes: int) -> dict[str, Any]:
    """What was known before anything was added up."""
    decided = {field.name: getattr(assignment, field.name) for field in fields(assignment)}
    pairs = zip(clips, assignment.num_tokens, strict=True)
    encoder_passes = tuple(passes if count < clip.cells else 1 for clip, count in pairs)
    return decided | {"encoder_passes": encoder_passes}


def _frame_mean(clips: Sequence[Clip], points: Sequence[Point]) -> float:
    frames = [clip.shape[0] for clip in clips]
    total = sum(point.psnr_frames_db * n for point, n in zip(points, frames, strict=True))
    return total / sum(frames)


def _tokenise_ms(clip: Clip, passes: int, points: Sequence[Point]) -> tuple[float, float | None]:
    """Wall and CPU time until the tokens of a clip are chosen."""
    # The analysis holds one of the decoder passes.
    extra = passes - 1
    wall_ms = clip.analyse_ms + extra * _mean(point.reconstruct_ms for point in points)
    decode_ms = _optional(_mean, (point.reconstruct_cpu_ms for point in points))
    if clip.analyse_cpu_ms is None or decode_ms is None:
        return max(wall_ms, 0.0), None
    return max(wall_ms, 0.0), max(clip.analyse_cpu_ms + extra * decode_ms, 0.0)


def _predict_ms(clip: Clip) -> tuple[float, float | None]:
    assert clip.prediction is not None
    return clip.prediction.analyse_ms, clip.prediction.analyse_cpu_ms


def _fvd(sources: Sequence[Features | None], others: Sequence[Features | None]) -> float | None:
    pairs = [
        (source, other)
        for source, other in zip(sources, others, strict=True)
        if source is not None and other is not None
    ]
    if len(pairs) < len(sources) or len(pairs) < 2:
        return None
    first, second = (np.stack(side) for side in zip(*pairs, strict=True))
    return frechet_distance(first, second)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


def _optional(
    summary: Callable[[list[float]], float], values: Iterable[float | None]
) -> float | None:
    """None as soon as one is missing."""
    found = list(values)
    known = [value for value in found if value is not None]
    return summary(known) if len(known) == len(found) else None
