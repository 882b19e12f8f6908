"""How well a latent router predicts the information that a decoder pass measures."""

from __future__ import annotations

from schemas.documents import Part

__all__ = ["Prediction", "PredictionSummary"]


class Prediction(Part):
    """What the latent router says of one clip.

    Attributes:
        elbo: Mean predicted information, from float16 values as the measured one is.
        spearman: Rank correlation with the measured information over the clip's tokens; None if one
            of them is the same everywhere.
        analyse_ms: Wall time of an analysis without a decoder, its share of a batch.
        analyse_cpu_ms: CPU time over all threads; None on a GPU.
    """

    elbo: float
    spearman: float | None
    analyse_ms: float
    analyse_cpu_ms: float | None = None


class PredictionSummary(Part):
    """The same over all clips.

    Attributes:
        spearman_mean: Mean over the clips that have one: what selection within a clip rests on.
        spearman_pooled: Over the tokens of all clips together.
        spearman_clips: Of the clips' mean information: what the router rests on.
        cost_ratio: Time of the analyses with the decoder over that without, CPU time on a CPU.
    """

    spearman_mean: float | None
    spearman_pooled: float | None
    spearman_clips: float | None
    cost_ratio: float
