"""Units in, unit objects out: the part of the tokenizer actor that is not Ray."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.records import DecodedUnit
from pipelines.window_batches import VideoTokenizer, WindowBatches
from schemas.failures import Failure, FailureReason, FailureStage
from schemas.units import encode_unit
from schemas.windows import WindowAnalysis

__all__ = ["AnalysedUnit", "UnitAnalyser", "VideoTokenizer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysedUnit:
    """What became of a unit: an object to store and what it holds, or the failure of its video."""

    unit: DecodedUnit
    data: bytes = b""
    windows: tuple[WindowAnalysis, ...] = ()
    failure: Failure | None = None


class UnitAnalyser:
    """Runs a tokenizer over units of any video, in batches that cross their borders.

    Threads may share one: their windows then share batches too (see `WindowBatches`).

    Args:
        batch_size: Windows per GPU batch.
        fixed_places: False puts windows wherever in a batch there is room.
    """

    def __init__(
        self, tokenizer: VideoTokenizer, *, batch_size: int, fixed_places: bool = True
    ) -> None:
        self._tokenizer = tokenizer
        self._batches = WindowBatches(tokenizer, batch_size=batch_size, fixed_places=fixed_places)

    def windows(
        self, units: Sequence[DecodedUnit]
    ) -> Iterator[Sequence[WindowAnalysis] | Exception]:
        """For each unit, in order and as soon as it is through: its windows, or why it failed.

        Raises:
            torch.AcceleratorError: The GPU is lost to this process.
        """
        return self._batches.analyse(units)

    def analyse(self, units: Sequence[DecodedUnit]) -> Iterator[AnalysedUnit]:
        """One result per unit, in order.

        Raises:
            Exception: Whatever the tokenizer raises for a unit.
        """
        for unit, windows in zip(units, self.windows(units), strict=True):
            if isinstance(windows, Exception):
                raise windows
            yield self.encode(unit, windows)

    def encode(
        self, unit: DecodedUnit, windows: Sequence[WindowAnalysis] | Exception
    ) -> AnalysedUnit:
        """The object that holds a unit, from its windows or why there are none."""
        if isinstance(windows, Exception):
            memory = isinstance(windows, MemoryError)
            reason = FailureReason.OUT_OF_MEMORY if memory else FailureReason.INTERNAL
            failure = Failure(reason=reason, stage=FailureStage.ANALYSE, detail=repr(windows))
            return AnalysedUnit(unit=unit, failure=failure)
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
