"""What ``infotok evaluate --json`` writes: every decode of every clip, and what they add up to.

A *clip* is a full window. A *point* is one decode of it: a selection and a number of tokens. An
*outcome* is a router with a selection at a rate: it names one point of each clip, so whoever wants
the PSNR of clip 3 under an outcome looks up ``num_tokens[3]`` among the points of clip 3.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas.documents import Document, Part
from schemas.prediction import Prediction, PredictionSummary

__all__ = [
    "CONVENTIONS",
    "ClipReport",
    "EvaluationReport",
    "LeftOut",
    "Outcome",
    "Point",
    "PointSelection",
    "Router",
    "Selected",
]

Router = Literal[
    "static",
    "global_elbo",
    "global_elbo_paper",
    "global_latent",
    "token_threshold",
    "search",
    "optimal_error",
    "optimal_psnr",
]
"""``static``: every clip the same rate. ``global_elbo``: in proportion to its information, the
corpus mean exact. ``global_elbo_paper``: Eq. 4, the mean drifts with clipping. ``global_latent``:
`global_elbo` with the predictions of the latent router in place of measurements.
``token_threshold``: one threshold for the tokens of all clips (`token_rules`), the mean exact.
``search``: the least rate that meets a threshold (ElasticTok). ``optimal_error``,
``optimal_psnr``: with hindsight, the least total squared error or the best mean PSNR for the tokens
that ``global_elbo`` spent."""

Selected = Literal["information", "latent", "r2l", "jump"]
"""Which tokens are kept; ``latent``: those of the highest predicted information."""

PointSelection = Literal["all", "information", "latent", "r2l", "jump"]
"""Likewise of one decode; ``all`` tokens are the same ones under every rule."""

CONVENTIONS = {
    "psnr_db": "10 log10(255^2 / mse) of each clip's pooled error, then the mean over clips",
    "psnr_pooled_db": "PSNR of the squared error pooled over all clips",
    "psnr_frames_db": "PSNR of each frame, then the mean over all frames",
    "ssim": "scikit-image, 7 x 7 windows, colours apart, mean over frames, then over clips",
    "lpips": "LPIPS 0.1 with VGG16, mean over frames, then over clips",
    "fvd": "Frechet distance of I3D logits of the clips, 224 x 224; comparable at equal counts",
    "bpp16": "(tokens * log2(codebook) + one mask bit per position) / pixels * 16",
    "encoder_passes, decoder_passes": (
        "network evaluations until the tokens of a clip are chosen; decoding them to video is one "
        "further decoder pass"
    ),
    "tokenise_ms": (
        "measured analysis (one encoder and one decoder pass), plus or minus as many measured "
        "decodes as decoder_passes differ from one; of the latent router its own analysis; without "
        "the second encoder pass of a budget-aware compressor; median over clips, as the first "
        "batches also choose kernels"
    ),
    "spearman": (
        "rank correlation of predicted and measured information: over the tokens of a clip, then "
        "the mean over clips; over the tokens of all clips; over the clips' means"
    ),
    "cost_ratio": (
        "analysis with the decoder over analysis with the latent router, medians over clips; CPU "
        "time on CPU"
    ),
}
"""What the numbers mean, by name."""

_Count = Annotated[int, Field(ge=0)]
_Positive = Annotated[int, Field(ge=1)]


class Point(Part):
    """One decode of one clip.

    Attributes:
        selection: Which tokens were kept.
        num_tokens: How many.
        squared_error: Summed over frames, pixels and colours of the uint8 videos: exact.
        psnr_db: Of the clip's pooled error.
        psnr_frames_db: Mean over its frames.
        ssim: Mean over its frames; None where it was not asked for.
        lpips: Likewise.
        reconstruct_ms: Wall time of decoding, its share of a batch.
        reconstruct_cpu_ms: CPU time over all threads; None on a GPU.
    """

    selection: PointSelection
    num_tokens: _Positive
    squared_error: _Count
    psnr_db: float
    psnr_frames_db: float
    ssim: float | None = None
    lpips: float | None = None
    reconstruct_ms: float
    reconstruct_cpu_ms: float | None = None


class ClipReport(Part):
    """One clip and all its decodes.

    Attributes:
        source: URI relative to the source root.
        window_index: Position on the video's window grid.
        start_time_s: On the source timeline; the span is half-open.
        end_time_s: Likewise.
        frames: Per clip.
        height: Pixels.
        width: Pixels.
        cells: Positions t*h*w: tokens at rate 1.
        elbo: Mean information, from the float16 values that selection uses.
        analyse_ms: Wall time of analysis, its share of a batch.
        analyse_cpu_ms: CPU time over all threads; None on a GPU.
        points: By selection, then number of tokens.
        prediction: Of the latent router, where it was looked at.
    """

    source: str
    window_index: _Count
    start_time_s: float
    end_time_s: float
    frames: _Positive
    height: _Positive
    width: _Positive
    cells: _Positive
    elbo: float
    analyse_ms: float
    analyse_cpu_ms: float | None = None
    points: tuple[Point, ...]
    prediction: Prediction | None = None

    @property
    def pixels(self) -> int:
        """Frames * rows * columns."""
        return self.frames * self.height * self.width

    def point(self, selection: PointSelection, num_tokens: int) -> Point:
        """The decode with these tokens.

        Raises:
            KeyError: If there is none.
        """
        kind = "all" if num_tokens == self.cells else selection
        for point in self.points:
            if (point.selection, point.num_tokens) == (kind, num_tokens):
                return point
        raise KeyError(
            f"{self.source} {self.window_index}: no decode of {num_tokens} tokens by {kind}"
        )


class Outcome(Part):
    """A router with a selection at a rate, over all clips.

    Attributes:
        router: Who decided how many.
        selection: Who decided which.
        rate_target: The asked mean rate; None if a threshold was asked for.
        threshold_db: ``search``: least PSNR of a clip, asked for or found; None otherwise.
        num_tokens: Of each clip, in the order of the clips.
        encoder_passes: Likewise; see `CONVENTIONS`.
        decoder_passes: Likewise.
        rate: Realised: kept tokens / tokens at rate 1, over the corpus.
        bpp16: See `CONVENTIONS`.
        bpp16_without_mask: Kept tokens alone.
        psnr_db: See `CONVENTIONS`, as for all that follow.
        psnr_pooled_db: None of these is ever missing.
        psnr_frames_db: Likewise.
        ssim: None if a clip has none.
        lpips: Likewise.
        fvd: Likewise, or below two clips.
        bound_db: Optimal routers: what no choice among the measured points can exceed in their own
            objective, pooled or mean PSNR (one clip's gain is interpolated for it).
        tokenise_ms: Median over clips: the first batches of a shape also choose kernels.
        tokenise_cpu_ms: Median over clips; None on a GPU.
        reconstruct_ms: Median over clips.
        reconstruct_cpu_ms: Median over clips; None on a GPU.
    """

    router: Router
    selection: Selected
    rate_target: float | None
    threshold_db: float | None = None
    num_tokens: tuple[_Positive, ...]
    encoder_passes: tuple[_Positive, ...]
    decoder_passes: tuple[_Count, ...]
    rate: float
    bpp16: float
    bpp16_without_mask: float
    psnr_db: float
    psnr_pooled_db: float
    psnr_frames_db: float
    ssim: float | None = None
    lpips: float | None = None
    fvd: float | None = None
    bound_db: float | None = None
    tokenise_ms: float
    tokenise_cpu_ms: float | None = None
    reconstruct_ms: float
    reconstruct_cpu_ms: float | None = None


class LeftOut(Part):
    """A video that gave no clip, and why: a reason of `failures.FailureReason`."""

    source: str
    reason: str
    detail: str


class EvaluationReport(Document):
    """The whole evaluation.

    Attributes:
        kind: Tells this document from others.
        command: The arguments that made it.
        started: ISO 8601, UTC.
        seconds: Wall time of everything.
        machine: Facts by name.
        checkpoint: As it was asked for.
        fingerprint: Of the tokenizer.
        num_codes: Size of its codebook.
        temporal_compression: Frames per latent frame, after the first.
        spatial_compression: Pixels per latent row and column.
        source_root: What ``source`` of a clip is relative to.
        settings: Rates, sweep, window and such, as they took effect.
        conventions: `CONVENTIONS`.
        left_out: Videos that could not be decoded.
        clips: In order of source and window.
        outcomes: In the order they were computed.
        prediction: Of the latent router, where it was looked at.
    """

    kind: Literal["infotok-evaluation"] = "infotok-evaluation"
    command: tuple[str, ...]
    started: str
    seconds: float
    machine: dict[str, str | int | float | None]
    checkpoint: str
    fingerprint: str
    num_codes: _Positive
    temporal_compression: _Positive
    spatial_compression: _Positive
    source_root: str
    settings: dict[str, str | int | float | bool | tuple[float, ...] | None]
    conventions: dict[str, str] = CONVENTIONS
    left_out: tuple[LeftOut, ...] = ()
    clips: tuple[ClipReport, ...]
    outcomes: tuple[Outcome, ...]
    prediction: PredictionSummary | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.clips or not self.outcomes:
            raise ValueError("there are no clips, or no outcomes")
        for outcome in self.outcomes:
            lengths = {
                len(outcome.num_tokens),
                len(outcome.encoder_passes),
                len(outcome.decoder_passes),
            }
            if lengths != {len(self.clips)}:
                raise ValueError(
                    f"{outcome.router}/{outcome.selection} speaks of {sorted(lengths)} clips, "
                    f"there are {len(self.clips)}"
                )
            for clip, count in zip(self.clips, outcome.num_tokens, strict=True):
                try:
                    clip.point(outcome.selection, count)
                except KeyError as error:
                    raise ValueError(f"{error.args[0]}, as {outcome.router} has it") from error
        return self

    @property
    def rates(self) -> list[float]:
        """Asked rates, the largest first."""
        return sorted(
            {item.rate_target for item in self.outcomes if item.rate_target is not None},
            reverse=True,
        )

    @property
    def grid_selection(self) -> Selected:
        """Which tokens go first for the search and the optimum."""
        grid = ("search", "optimal_error", "optimal_psnr")
        for item in self.outcomes:
            if item.router in grid:
                return item.selection
        return "information"

    def outcome(
        self, router: Router, selection: Selected = "information", *, rate: float
    ) -> Outcome | None:
        """The outcome of a router and a selection at an asked rate, if it was computed."""
        for outcome in self.outcomes:
            target = outcome.rate_target
            if (outcome.router, outcome.selection) == (router, selection) and (
                target is not None and math.isclose(target, rate)
            ):
                return outcome
        return None
