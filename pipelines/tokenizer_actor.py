"""The second Ray stage of pass one: tokenizer actors. A thin shell around `analyser`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

import pyarrow as pa
import ray
import torch

from infotok_core.opening import named_dtype, open_tokenizer
from pipelines.analyser import UnitAnalyser, VideoTokenizer
from pipelines.config import RunConfig
from pipelines.errors import PipelineError
from pipelines.records import DecodedUnit, Status, statuses_to_table, table_to_units
from pipelines.stages import StageSpec
from pipelines.turns import Turns
from pipelines.unit_status import failed_unit, stored_unit
from schemas.failures import Failure, FailureReason, FailureStage
from schemas.ids import unit_id
from schemas.windows import WindowAnalysis

__all__ = ["AnalyseUnits", "load_tokenizer"]

_STORING = 8
"""Threads of an actor that note starts, pack units and store them."""

log = logging.getLogger(__name__)


def load_tokenizer(config: RunConfig, device: str) -> VideoTokenizer:
    """The tokenizer of the configuration, with its source of information, on ``device``."""
    return open_tokenizer(
        config.tokenizer.checkpoint,
        device=device,
        dtype=named_dtype(config.tokenizer.dtype),
        information=config.analysis.information,
    )


def _loaded(spec: StageSpec) -> VideoTokenizer:
    """The tokenizer of ``spec``; starts are counted, for Ray restarts an actor without end.

    Raises:
        PipelineError: If it has ended this actor too often.
    """
    limit = spec.config.limits.attempts
    actor = ray.get_runtime_context().get_actor_id() if ray.is_initialized() else None
    name = f"actors/{actor}"
    start = spec.work.claim(name, run_id=spec.run_id, limit=limit)
    if start > limit:
        raise PipelineError(
            f"the tokenizer ended its process {limit} times (limits.attempts) while it was loaded: "
            "out of memory, or a crash in a library, of which Ray may say more above"
        )
    try:
        return (spec.load or load_tokenizer)(spec.config, spec.device)
    finally:
        # Nobody died, whatever it came to.
        spec.work.release(name, run_id=spec.run_id, starts=start)


class AnalyseUnits:
    """Unit rows in, unit objects stored, status rows out. Ray actor: loads the weights once.

    Ray may call from several threads; their windows share GPU batches, and while one waits for the
    store the others keep the GPU busy. Nothing is kept from call to call, so Ray may replay one on
    another actor.
    """

    def __init__(self, spec: StageSpec) -> None:
        self._spec = spec
        if spec.device == "cpu":
            torch.set_num_threads(spec.config.tokenizer.cpu_threads)
        settings = spec.config.tokenizer
        self._analyser = UnitAnalyser(
            _loaded(spec),
            batch_size=settings.batch_size,
            fixed_places=settings.fixed_places,
        )
        self._turns = Turns()
        self._storing = ThreadPoolExecutor(_STORING)

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Status rows, one per row of ``batch``; a unit's when its object is stored."""
        items = list(table_to_units(batch))
        done = [item for item in items if isinstance(item, Status)]
        units = [item for item in items if isinstance(item, DecodedUnit)]
        with self._turns.together():
            # A start is noted before it happens; here only that of a unit that has had none.
            starts = list(self._storing.map(lambda unit: self._claim(unit, limit=1), units))
            claimed = list(zip(units, starts, strict=True))
            done += self._first([unit for unit, start in claimed if start == 1])
        for unit in (unit for unit, start in claimed if start != 1):
            # Whoever held it died. Alone it can only fail itself, not those beside it.
            with self._turns.alone():
                done.append(self._again(unit))
        yield statuses_to_table(done)

    def _first(self, units: Sequence[DecodedUnit]) -> list[Status]:
        futures = [
            self._storing.submit(self._settle, unit, windows)
            for unit, windows in zip(units, self._analyser.windows(units), strict=True)
        ]
        return [future.result() for future in futures]

    def _again(self, unit: DecodedUnit) -> Status:
        limit = self._spec.config.limits.attempts
        start = self._claim(unit, limit=limit)
        try:
            # The actor before may have died after it stored the unit.
            data = self._read(unit.path)
        except FileNotFoundError:
            if start > limit:
                detail = f"workers died {limit} times while they held unit {unit.unit_index}"
                failure = Failure(
                    reason=FailureReason.WORKER_LOST, stage=FailureStage.ANALYSE, detail=detail
                )
                return failed_unit(unit.video, unit.unit_index, failure)
            [windows] = self._analyser.windows([unit])
            status = self._settle(unit, windows)
        else:
            status = self._stored(unit, data)
        if start <= limit:
            self._spec.work.release(self._start_name(unit), run_id=self._spec.run_id, starts=start)
        return status

    def _claim(self, unit: DecodedUnit, *, limit: int) -> int:
        name = self._start_name(unit)
        return self._spec.work.claim(name, run_id=self._spec.run_id, limit=limit)

    def _start_name(self, unit: DecodedUnit) -> str:
        folder = PurePosixPath(unit.path).parent.name
        return self._spec.work.start_name(folder, unit_id(unit.video, unit.unit_index))

    def _settle(self, unit: DecodedUnit, windows: Sequence[WindowAnalysis] | Exception) -> Status:
        """Store a unit's object; the row that says so, or why there is none."""
        result = self._analyser.encode(unit, windows)
        if result.failure is not None:
            return failed_unit(unit.video, unit.unit_index, result.failure)
        store = self._spec.work.store
        if self._spec.keep_units and not store.create(unit.path, result.data):
            there = self._read(unit.path)
            if there != result.data:
                # A GPU kernel that is not deterministic: the first object wins, and it is said.
                log.warning("%s was stored before with other bytes; kept", store.full(unit.path))
                return self._stored(unit, there)
        return self._stored(unit, result.data, result.windows)

    def _stored(
        self, unit: DecodedUnit, data: bytes, windows: Sequence[WindowAnalysis] | None = None
    ) -> Status:
        floor = self._spec.config.routing.token_floor
        return stored_unit(unit.path, unit.video, unit.unit_index, data, windows, token_floor=floor)

    def _read(self, path: str) -> bytes:
        return self._spec.work.store.read(path)
