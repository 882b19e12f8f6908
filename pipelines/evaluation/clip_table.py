"""The table of the clips: what the ELBO router gave each, and what came of it."""

from __future__ import annotations

from pipelines.evaluation.markdown import Row, code, number, passes, table, time_ms
from schemas.evaluation import ClipReport, EvaluationReport, Outcome
from schemas.tokens import bpp16

__all__ = ["clip_table"]

_MAX_CLIPS = 60


def clip_table(report: EvaluationReport) -> str:
    """A row per clip, as far as anybody would read them; the JSON has all."""
    found = [
        (rate, outcome)
        for rate in report.rates
        if (outcome := report.outcome("global_elbo", rate=rate)) is not None
    ]
    head = ["clip", "window", "ELBO", "analyse ms"]
    for rate, _ in found:
        head += [f"rate at {rate:g}", "BPP16", "PSNR dB", "SSIM", "decode ms"]
    rows: list[Row] = [
        [
            code(clip.source),
            f"{clip.window_index}",
            f"{clip.elbo:.4f}",
            time_ms(clip.analyse_ms, clip.analyse_cpu_ms),
            *(cell for _, outcome in found for cell in _cells(report, clip, outcome, place)),
        ]
        for place, clip in enumerate(report.clips[:_MAX_CLIPS])
    ]
    spent = dict.fromkeys(passes(outcome) for _, outcome in found)
    notes = [f"NFE of each: {' or '.join(spent)}."]
    left = len(report.clips) - len(rows)
    if left > 0:
        notes.append(f"And {left} more clips, in the JSON file.")
    return table("Clips, under the ELBO router", head, rows, " ".join(notes))


def _cells(
    report: EvaluationReport, clip: ClipReport, outcome: Outcome, place: int
) -> tuple[str, ...]:
    point = clip.point("information", outcome.num_tokens[place])
    tokens = point.num_tokens
    return (
        f"{tokens / clip.cells:.3f}",
        f"{bpp16(tokens, clip.cells, clip.pixels, num_codes=report.num_codes):.3f}",
        f"{point.psnr_db:.2f}",
        number(point.ssim, 4),
        time_ms(point.reconstruct_ms, point.reconstruct_cpu_ms),
    )
