"""The second Ray stage of pass one: tokenizer actors. A thin shell around `analyser`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import pyarrow as pa
import torch

from infotok_core.opening import named_dtype, open_tokenizer
from pipelines.analyser import AnalysedUnit, UnitAnalyser, VideoTokenizer
from pipelines.config import RunConfig
from pipelines.records import DecodedUnit, Status, statuses_to_table, table_to_units
from pipelines.stages import StageSpec
from pipelines.unit_status import failed_unit, stored_unit
from schemas.failures import Failure, FailureReason, FailureStage
from schemas.ids import unit_id

__all__ = ["AnalyseUnits", "load_tokenizer"]

log = logging.getLogger(__name__)


def load_tokenizer(config: RunConfig, device: str) -> VideoTokenizer:
    """The tokenizer of the configuration, with its source of information, on ``device``."""
    return open_tokenizer(
        config.tokenizer.checkpoint,
        device=device,
        dtype=named_dtype(config.tokenizer.dtype),
        information=config.analysis.information,
    )


class AnalyseUnits:
    """Unit rows in, unit objects stored, status rows out. Ray actor: loads the weights once.

    Holds no state between calls, so Ray may replay a batch on another actor.
    """

    def __init__(self, spec: StageSpec) -> None:
        self._spec = spec
        if spec.device == "cpu":
            torch.set_num_threads(spec.config.tokenizer.cpu_threads)
        load = spec.load or load_tokenizer
        self._analyser = UnitAnalyser(
            load(spec.config, spec.device), batch_size=spec.config.tokenizer.batch_size
        )

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Status rows, one per row of ``batch``, of which ``units_per_call`` share GPU batches."""
        limit, run_id = self._spec.config.limits.attempts, self._spec.run_id
        done: list[Status] = []
        ready: list[DecodedUnit] = []
        for item in table_to_units(batch):
            if isinstance(item, Status):
                done.append(item)
                continue
            folder = PurePosixPath(item.path).parent.name
            name = self._spec.work.start_name(folder, unit_id(item.video, item.unit_index))
            attempt = self._spec.work.claim(name, run_id=run_id, limit=limit)
            if attempt > 1:
                # Whoever held it died. Alone it can only fail itself, not those it came with.
                done.append(self._again(item, attempt))
                if attempt <= limit:
                    self._spec.work.release(name, run_id=run_id, starts=attempt)
                continue
            ready.append(item)
            if len(ready) == self._spec.config.runtime.units_per_call:
                done += self._settled(ready)
                ready = []
        if ready:
            done += self._settled(ready)
        yield statuses_to_table(done)

    def _settled(self, units: Sequence[DecodedUnit]) -> list[Status]:
        return [self._settle(result) for result in self._analysed(units)]

    def _again(self, unit: DecodedUnit, attempt: int) -> Status:
        # The actor before may have died after it stored the unit.
        with contextlib.suppress(FileNotFoundError):
            return stored_unit(unit.path, unit.video, unit.unit_index, self._read(unit.path))
        limit = self._spec.config.limits.attempts
        if attempt > limit:
            detail = f"workers died {limit} times while they held unit {unit.unit_index}"
            failure = _failure(FailureReason.WORKER_LOST, detail)
            return failed_unit(unit.video, unit.unit_index, failure)
        return self._settle(self._analysed([unit])[0])

    def _analysed(self, units: Sequence[DecodedUnit]) -> list[AnalysedUnit]:
        """Units as one batch or, if that fails, each on its own."""
        try:
            return list(self._analyser.analyse(units))
        except torch.AcceleratorError:
            # The GPU's context is lost with it: only another process can go on.
            raise
        except Exception as error:
            log.exception("analysing %d units failed", len(units))
            if len(units) == 1:
                memory = isinstance(error, MemoryError)
                reason = FailureReason.OUT_OF_MEMORY if memory else FailureReason.INTERNAL
                failure = _failure(reason, repr(error))
                return [AnalysedUnit(unit=units[0], failure=failure)]
        return [result for unit in units for result in self._analysed([unit])]

    def _settle(self, result: AnalysedUnit) -> Status:
        unit = result.unit
        if result.failure is not None:
            return failed_unit(unit.video, unit.unit_index, result.failure)
        store = self._spec.work.store
        if self._spec.keep_units and not store.create(unit.path, result.data):
            there = self._read(unit.path)
            if there != result.data:
                # A GPU kernel that is not deterministic: the first object wins, and it is said.
                log.warning("%s was stored before with other bytes; kept", store.full(unit.path))
                return stored_unit(unit.path, unit.video, unit.unit_index, there)
        return stored_unit(unit.path, unit.video, unit.unit_index, result.data, result.windows)

    def _read(self, path: str) -> bytes:
        return self._spec.work.store.read(path)


def _failure(reason: FailureReason, detail: str) -> Failure:
    return Failure(reason=reason, stage=FailureStage.ANALYSE, detail=detail)
