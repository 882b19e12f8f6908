"""One decode per clip, selection and budget, compared with the frames it should have been.

Shapes: B decodes of one clip, T frames, H rows, W columns, C = 3; lower-case t, h, w the latent
grid, N = t*h*w tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infotok_core.fvd import ClipFeatures
from infotok_core.metrics import frame_squared_errors, mean_frame_psnr_db, psnr_db
from infotok_core.perceptual import Lpips
from infotok_core.router import select_batch, selection_scores
from infotok_core.tokenizer import Tokenizer, from_uint8
from pipelines.errors import PipelineError
from pipelines.evaluation.analysis import Clip
from pipelines.evaluation.routing import PointKey
from pipelines.evaluation.settings import Clocks, EvaluatedTokenizer, timed
from pipelines.evaluation.ssim_pool import Similarity, SsimPool
from schemas.evaluation import Point, PointSelection

__all__ = [
    "Features",
    "Measured",
    "Measurer",
    "Metrics",
    "Pending",
    "is_budget_aware",
]

Features = NDArray[np.float64]
"""Of one clip, for FVD."""

_FRAMES_AT_ONCE = 8
"""Through VGG16, whose first activations take 17 MB per 256 x 256 frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """What is measured beside squared errors, on the tokenizer's device."""

    lpips: Lpips | None = None
    features: ClipFeatures | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """A decode: what is reported, and its features for FVD."""

    point: Point
    features: Features | None


@dataclass(frozen=True, slots=True)
class Pending:
    """A decode whose SSIM is still being computed elsewhere, or was not asked for."""

    measured: Measured
    similarity: Similarity | None

    def result(self) -> Measured:
        """The decode with all that was asked for; waits.

        Raises:
            PipelineError: If its SSIM cannot be computed.
        """
        if self.similarity is None:
            return self.measured
        found = self.similarity.result()
        point = self.measured.point.model_copy(update={"ssim": found})
        return Measured(point, self.measured.features)


class Measurer:
    """Decodes and compares.

    Args:
        batch_size: Decodes per call on a GPU; 1 on a CPU.
        pool: Computes SSIM while the GPU goes on. On a CPU it is waited for, so that the network
            has the processor to itself when its time is taken.
    """

    def __init__(
        self,
        tokenizer: EvaluatedTokenizer,
        metrics: Metrics,
        *,
        batch_size: int,
        pool: SsimPool,
        clocks: Clocks,
    ) -> None:
        self._tokenizer = tokenizer
        self._metrics = metrics
        self._on_cpu = tokenizer.device.type == "cpu"
        self._batch_size = 1 if self._on_cpu else batch_size
        self._pool = pool
        self._clocks = clocks

    def features(self, frames_THWC: NDArray[np.uint8]) -> Features | None:
        """Features of a source clip; None without a network for them."""
        if self._metrics.features is None:
            return None
        video_BTHWC = torch.from_numpy(frames_THWC)[None].to(self._tokenizer.device)
        return self._features(video_BTHWC)[0]

    def measure(
        self,
        clip: Clip,
        frames_THWC: NDArray[np.uint8],
        keys: Collection[PointKey],
        *,
        closely: Callable[[PointKey], bool],
    ) -> dict[PointKey, Pending]:
        """Decode the clip at each point.

        Args:
            clip: Its analysis.
            frames_THWC: Its frames.
            keys: Points.
            closely: Whether SSIM, LPIPS and features are worth their time at a point.

        Raises:
            PipelineError: If the GPU is too small, or an SSIM, of an earlier clip maybe, failed.
        """
        source_THWC = torch.from_numpy(frames_THWC).to(self._tokenizer.device)
        found: dict[PointKey, Pending] = {}
        # Alike by selection and by whether they are looked at closely.
        for close in (True, False):
            group = sorted(key for key in keys if closely(key) == close)
            for start in range(0, len(group), self._batch_size):
                batch = group[start : start + self._batch_size]
                found.update(self._batch(clip, source_THWC, batch, close=close))
        return found

    def _batch(
        self, clip: Clip, source_THWC: Tensor, keys: Sequence[PointKey], *, close: bool
    ) -> dict[PointKey, Pending]:
        device = self._tokenizer.device
        keep_Bthw = _keep(clip, keys).to(device)
        codes_Bthw = self._codes(clip, source_THWC, keep_Bthw)
        try:
            video_BTHWC, time = timed(
                lambda: self._tokenizer.reconstruct(codes_Bthw, keep_Bthw),
                device=device,
                clocks=self._clocks,
            )
        except torch.cuda.OutOfMemoryError as error:
            raise PipelineError(
                f"the GPU cannot hold {len(keys)} decodes at once: lower --batch-size"
            ) from error
        share = time.share(len(keys))
        sources_BTHWC = source_THWC.expand_as(video_BTHWC)
        errors = frame_squared_errors(sources_BTHWC, video_BTHWC).tolist()
        none: list[None] = [None] * len(keys)
        similar = self._ssim(clip, source_THWC, video_BTHWC) if close else none
        distant = self._lpips(source_THWC, video_BTHWC) if close else none
        vectors = self._features(video_BTHWC) if close else none
        values = source_THWC[0].numel()
        return {
            key: Pending(
                Measured(
                    Point(
                        selection=key[0],
                        num_tokens=key[1],
                        squared_error=sum(errors[row]),
                        psnr_db=psnr_db(sum(errors[row]), source_THWC.numel()),
                        psnr_frames_db=mean_frame_psnr_db(errors[row], values),
                        lpips=distant[row],
                        reconstruct_ms=share.wall_ms,
                        reconstruct_cpu_ms=share.cpu_ms,
                    ),
                    vectors[row],
                ),
                similar[row],
            )
            for row, key in enumerate(keys)
        }

    def _codes(self, clip: Clip, source_THWC: Tensor, keep_Bthw: Tensor) -> Tensor:
        tokenizer = self._tokenizer
        if is_budget_aware(tokenizer):
            video_BTHWC = source_THWC.expand(len(keep_Bthw), *source_THWC.shape)
            return tokenizer.encode_kept(video_BTHWC, keep_Bthw)
        return torch.from_numpy(clip.codes_thw).to(tokenizer.device).expand_as(keep_Bthw)

    def _ssim(self, clip: Clip, source_THWC: Tensor, video_BTHWC: Tensor) -> list[Similarity]:
        name = f"{clip.source}, window {clip.span.window_index}"
        source = source_THWC.cpu().numpy()
        found = [
            self._pool.submit(name, source, video_THWC) for video_THWC in video_BTHWC.cpu().numpy()
        ]
        if self._on_cpu:
            for similarity in found:
                similarity.result()
        return found

    def _lpips(self, source_THWC: Tensor, video_BTHWC: Tensor) -> Sequence[float | None]:
        lpips = self._metrics.lpips
        if lpips is None:
            return [None] * len(video_BTHWC)
        source_TCHW = from_uint8(source_THWC[None])[0].transpose(0, 1)
        means: list[float] = []
        for video_CTHW in from_uint8(video_BTHWC):
            parts = zip(
                source_TCHW.split(_FRAMES_AT_ONCE),
                video_CTHW.transpose(0, 1).split(_FRAMES_AT_ONCE),
                strict=True,
            )
            distances_T = torch.cat([lpips(first, second) for first, second in parts])
            means.append(distances_T.mean().item())
        return means

    def _features(self, video_BTHWC: Tensor) -> Sequence[Features | None]:
        network = self._metrics.features
        if network is None:
            return [None] * len(video_BTHWC)
        return [network(from_uint8(clip[None]))[0].numpy() for clip in video_BTHWC]


def is_budget_aware(tokenizer: EvaluatedTokenizer) -> TypeGuard[Tokenizer]:
    """Whether the codes of a clip have to be made for each mask."""
    return isinstance(tokenizer, Tokenizer) and tokenizer.network.is_budget_aware


def _keep(clip: Clip, keys: Sequence[PointKey]) -> Tensor:
    """Which tokens each decode has, bool ``[B, t, h, w]``."""
    # float32 holds the float16 values exactly, and ranks of any length.
    information_1thw = torch.from_numpy(clip.information_thw.astype(np.float32))[None]
    scores = [_scores(clip, kind, information_1thw) for kind, _ in keys]
    counts_B = torch.tensor([count for _, count in keys])
    kept_BN = select_batch(torch.cat(scores).flatten(1), counts_B)
    return kept_BN.view(len(keys), *information_1thw.shape[1:])


def _scores(clip: Clip, kind: PointSelection, information_1thw: Tensor) -> Tensor:
    if kind == "all":
        return information_1thw
    if kind == "latent":
        assert clip.prediction is not None
        return torch.from_numpy(clip.prediction.information_thw.astype(np.float32))[None]
    return selection_scores(kind, information_1thw)
