"""Units in, unit objects out: the part of the tokenizer actor that is not Ray.

Results must not depend on which windows happen to share a batch. On a CPU windows run one at a
time. On a GPU a batch always has the same padded size and one shape, across units and videos;
each result is put back by the position it was taken from.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infotok_core.config import TokenizerConfig
from infotok_core.shape import TokenShape
from infotok_core.tokenizer import Analysis, valid_latent_frames
from pipelines.pinned_upload import PinnedUpload
from pipelines.records import DecodedUnit
from schemas.failures import Failure, FailureReason, FailureStage
from schemas.units import encode_unit
from schemas.windows import WindowAnalysis

__all__ = ["AnalysedUnit", "UnitAnalyser", "VideoTokenizer"]

log = logging.getLogger(__name__)


class VideoTokenizer(Protocol):
    """What pass one needs of a tokenizer; every `infotok_core.tokenizer.VideoCodec` is one."""

    fingerprint: str
    device: torch.device

    @property
    def config(self) -> TokenizerConfig | TokenShape:
        """Compression and vocabulary."""
        ...

    def analyse(self, video_u8_BTHWC: Tensor, /) -> Analysis:
        """Full-rate codes and per-token information of a batch of windows."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysedUnit:
    """What became of a unit: an object to store and what it holds, or the failure of its video."""

    unit: DecodedUnit
    data: bytes = b""
    windows: tuple[WindowAnalysis, ...] = ()
    failure: Failure | None = None


class _Launched(NamedTuple):
    """A batch on its way: results on the device, and the positions (unit, window) they are of."""

    places: Sequence[tuple[int, int]]
    analysis: Analysis


class UnitAnalyser:
    """Runs a tokenizer over units of any video, in batches that cross unit borders.

    Args:
        batch_size: Windows per GPU batch; the last one is padded. Halved, for good, when the GPU
            runs out of memory.
    """

    def __init__(self, tokenizer: VideoTokenizer, *, batch_size: int) -> None:
        self._tokenizer = tokenizer
        self._batch_size = batch_size if tokenizer.device.type != "cpu" else 1
        gpu = tokenizer.device.type == "cuda"
        self._upload = PinnedUpload(tokenizer.device) if gpu else _batch_of

    def analyse(self, units: Sequence[DecodedUnit]) -> Iterator[AnalysedUnit]:
        """One result per unit, in order."""
        results: dict[tuple[int, int], WindowAnalysis] = {}
        shapes = sorted({unit.frames_NTHWC.shape[1:] for unit in units})
        for shape in shapes:
            places = [
                (index, window)
                for index, unit in enumerate(units)
                if unit.frames_NTHWC.shape[1:] == shape
                for window in range(len(unit.spans))
            ]
            # One batch ahead: the GPU computes while the one before is fetched and sorted.
            pending: _Launched | None = None
            start = 0
            while start < len(places):
                batch = places[start : start + self._batch_size]
                try:
                    launched = self._launch(units, batch)
                except torch.cuda.OutOfMemoryError:
                    self._halve()
                    continue
                results.update(self._collect(units, pending))
                pending = launched
                start += len(batch)
            results.update(self._collect(units, pending))
        for index, unit in enumerate(units):
            windows = [results.pop((index, window)) for window in range(len(unit.spans))]
            yield self._encode(unit, windows)

    def _halve(self) -> None:
        torch.cuda.empty_cache()
        if self._batch_size == 1:
            raise MemoryError("the GPU cannot hold one window of this shape")
        self._batch_size //= 2
        log.warning("GPU out of memory: batches of %d from now on", self._batch_size)

    def _launch(self, units: Sequence[DecodedUnit], places: Sequence[tuple[int, int]]) -> _Launched:
        frames = [units[index].frames_NTHWC[window] for index, window in places]
        frames += [frames[-1]] * (self._batch_size - len(frames))
        return _Launched(places, self._tokenizer.analyse(self._upload(frames)))

    def _collect(
        self, units: Sequence[DecodedUnit], launched: _Launched | None
    ) -> dict[tuple[int, int], WindowAnalysis]:
        if launched is None:
            return {}
        codes = launched.analysis.codes_Bthw.cpu().numpy().astype(np.uint16)
        information = _half(launched.analysis.information_Bthw.cpu().numpy())
        assert len(launched.places) <= codes.shape[0] == information.shape[0]
        temporal = self._tokenizer.config.temporal_compression
        windows: dict[tuple[int, int], WindowAnalysis] = {}
        for row, (index, window) in enumerate(launched.places):
            span = units[index].spans[window]
            valid = valid_latent_frames(span.num_frames, temporal)
            windows[index, window] = WindowAnalysis(
                span=span, codes=codes[row, :valid], information=information[row, :valid]
            )
        return windows

    def _encode(self, unit: DecodedUnit, windows: Sequence[WindowAnalysis]) -> AnalysedUnit:
        for window in windows:
            if not np.isfinite(window.information).all():
                detail = f"window {window.span.window_index}: information is not finite"
                failure = Failure(
                    reason=FailureReason.NON_FINITE, stage=FailureStage.ANALYSE, detail=detail
                )
                return AnalysedUnit(unit=unit, failure=failure)
        data = encode_unit(
            windows,
            video=unit.video,
            unit_index=unit.unit_index,
            tokenizer=self._tokenizer.fingerprint,
        )
        return AnalysedUnit(unit=unit, data=data, windows=tuple(windows))


def _batch_of(frames: Sequence[NDArray[np.uint8]]) -> Tensor:
    if len(frames) > 1:
        return torch.from_numpy(np.stack(frames))
    with warnings.catch_warnings():
        # Read-only, because it lies in Ray's object store; a tokenizer only reads.
        warnings.simplefilter("ignore")
        return torch.from_numpy(frames[0]).unsqueeze(0)


def _half(information: NDArray[np.float32]) -> NDArray[np.float16]:
    # Rounded once, here: selection only ever sees the stored float16 values, so that reusing pass
    # one and computing it again agree.
    with np.errstate(over="ignore"):
        return information.astype(np.float16)
