"""The two Ray stages of pass one: decode tasks and tokenizer actors. Thin shells around plain code.

Nothing a video does may fail a task: every failure of a video becomes its last row. What remains,
the death of a worker, is Ray's to retry; starts are counted durably beforehand, so that a video or
unit that kills its workers is set aside after a few of them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from infotok_core.opening import open_tokenizer
from pipelines.analyser import AnalysedUnit, UnitAnalyser, VideoTokenizer, describe_unit
from pipelines.config import RunConfig, StorageConfig
from pipelines.decode import DecodedWindow, DecodeError, DecodeRequest, DecoderProcess
from pipelines.records import (
    DecodedUnit,
    Status,
    failure_to_json,
    statuses_to_table,
    table_to_units,
    unit_to_table,
)
from pipelines.sources import source_url, stat_object
from pipelines.storage import Store, storage_options
from pipelines.work import WorkFolder
from schemas.failures import Failure, FailureReason, FailureStage
from schemas.ids import WINDOWS_PER_UNIT, unit_id
from schemas.units import decode_unit

__all__ = ["AnalyseUnits", "DecodeVideos", "StageSpec", "decode_videos", "load_tokenizer"]

log = logging.getLogger(__name__)

_decoder: DecoderProcess | None = None


def load_tokenizer(config: RunConfig, device: str) -> VideoTokenizer:
    """The tokenizer of the configuration, on ``device``."""
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.tokenizer.dtype]
    return open_tokenizer(config.tokenizer.checkpoint, device=device, dtype=dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSpec:
    """What every worker of pass one needs to know; small, and pickled to each of them.

    Attributes:
        source_root: What the URIs of the plan are relative to.
        run_id: Names this driver: starts are counted per driver.
        device: ``cpu`` or ``cuda``, resolved.
        keep_units: Store unit objects; False only measures them (``second_pass = recompute``).
        load: Makes the tokenizer in the actor; a benchmark hands in another.
    """

    config: RunConfig
    source_root: str
    work: WorkFolder
    run_id: str
    device: str
    keep_units: bool = True
    load: Callable[[RunConfig, str], VideoTokenizer] = load_tokenizer


class DecodeVideos:
    """Planned videos in; unit rows with frames, and one ``end`` row per video, out.

    Runs as Ray tasks. The decoding process lives as long as the Ray worker and serves many videos.
    """

    def __init__(self, spec: StageSpec) -> None:
        self._spec = spec

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Stream the rows of each video of ``batch``: rows of the plan with ``stored_units``."""
        for row in batch.to_pylist():
            yield from self._video(row)

    def _video(self, row: dict[str, Any]) -> Iterator[pa.Table]:
        limits = self._spec.config.limits
        attempt = self._spec.work.claim(
            row["video_id"], run_id=self._spec.run_id, limit=limits.attempts
        )
        if attempt > limits.attempts:
            detail = f"workers died {limits.attempts} times while they decoded it"
            yield self._end(row, attempt - 1, _failure(FailureReason.WORKER_LOST, detail))
            return
        changed = self._changed(row)
        if changed is not None:
            yield self._end(row, attempt, _failure(FailureReason.SOURCE_CHANGED, changed))
            return
        decoder = _decoder_process()
        try:
            for unit in self._units(decoder, row):
                yield unit_to_table(unit)
            for index in row["stored_units"]:
                yield statuses_to_table([_stored(self._spec.work, row, index)])
        except DecodeError as error:
            yield self._end(row, attempt, error.failure, decoder)
        except Exception as error:
            log.exception("decoding %s failed", row["uri"])
            decoder.kill()
            yield self._end(row, attempt, _failure(FailureReason.INTERNAL, repr(error)))
        else:
            yield self._end(row, attempt, None, decoder)
        if attempt > 1:
            self._spec.work.release(row["video_id"], run_id=self._spec.run_id, starts=attempt)

    def _units(self, decoder: DecoderProcess, row: dict[str, Any]) -> Iterator[DecodedUnit]:
        pending: list[DecodedWindow] = []
        request = self._request(row)
        for window in decoder.windows(request):
            unit_index = window.span.window_index // WINDOWS_PER_UNIT
            if pending and pending[0].span.window_index // WINDOWS_PER_UNIT != unit_index:
                yield self._unit(row, pending)
                pending = []
            pending.append(window)
        if pending:
            yield self._unit(row, pending)

    def _unit(self, row: dict[str, Any], windows: Sequence[DecodedWindow]) -> DecodedUnit:
        unit_index = windows[0].span.window_index // WINDOWS_PER_UNIT
        return DecodedUnit(
            video=row["video_id"],
            unit_index=unit_index,
            path=self._spec.work.unit_path(row["video_id"], row["version"], unit_index),
            spans=tuple(window.span for window in windows),
            frames_NTHWC=np.stack([window.frames_THWC for window in windows]),
        )

    def _request(self, row: dict[str, Any]) -> DecodeRequest:
        config = self._spec.config
        url = source_url(self._spec.source_root, row["uri"])
        return DecodeRequest(
            url=url,
            storage_options=storage_options(url, config.source_storage),
            size=row["size"],
            window=config.window,
            space=config.space,
            limits=config.limits,
            skip_units=frozenset(row["stored_units"]),
        )

    def _changed(self, row: dict[str, Any]) -> str | None:
        url = source_url(self._spec.source_root, row["uri"])
        store = _source_store(self._spec.source_root, self._spec.config.source_storage)
        try:
            _, version = stat_object(store, url)
        except OSError:
            # The decoder meets the same error and names it better.
            return None
        planned = row["version"]
        return None if version == planned else f"planned version {planned}, found {version}"

    def _end(
        self,
        row: dict[str, Any],
        attempt: int,
        failure: Failure | None,
        decoder: DecoderProcess | None = None,
    ) -> pa.Table:
        facts = decoder.facts if decoder else None
        summary = decoder.summary if decoder else None
        windows = summary.num_windows if summary else 0
        payload = {
            "uri": row["uri"],
            "version": row["version"],
            "attempts": attempt,
            "windows": windows,
            "units": -(-windows // WINDOWS_PER_UNIT),
            "facts": asdict(facts) if facts else None,
            "num_frames_decoded": summary.num_frames_decoded if summary else 0,
            "num_frames_dropped": summary.num_frames_dropped if summary else 0,
            "failure": failure_to_json(failure) if failure else None,
        }
        return statuses_to_table([Status(kind="end", video=row["video_id"], payload=payload)])


def decode_videos(batch: pa.Table, *, spec: StageSpec) -> Iterator[pa.Table]:
    """`DecodeVideos` as the plain function that Ray Data runs as tasks."""
    yield from DecodeVideos(spec)(batch)


class AnalyseUnits:
    """Unit rows in, unit objects stored, status rows out. Ray actor: loads the weights once.

    Holds no state between calls, so Ray may replay a batch on another actor.
    """

    def __init__(self, spec: StageSpec) -> None:
        self._spec = spec
        if spec.device == "cpu":
            torch.set_num_threads(spec.config.tokenizer.cpu_threads)
        self._analyser = UnitAnalyser(
            spec.load(spec.config, spec.device), batch_size=spec.config.tokenizer.batch_size
        )

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Status rows, one per row of ``batch``."""
        limit, run_id = self._spec.config.limits.attempts, self._spec.run_id
        ready: list[DecodedUnit] = []
        for item in table_to_units(batch):
            if isinstance(item, Status):
                yield statuses_to_table([item])
                continue
            name = unit_id(item.video, item.unit_index)
            attempt = self._spec.work.claim(name, run_id=run_id, limit=limit)
            if attempt == 1:
                ready.append(item)
                continue
            # Whoever held it died. Alone it can only fail itself, not those it came with.
            yield statuses_to_table([self._again(item, attempt)])
            if attempt <= limit:
                self._spec.work.release(name, run_id=run_id, starts=attempt)
        if ready:
            for result in self._analysed(ready):
                yield statuses_to_table([self._settle(result)])

    def _again(self, unit: DecodedUnit, attempt: int) -> Status:
        # The actor before may have died after it stored the unit.
        with contextlib.suppress(FileNotFoundError):
            return _describe(unit.path, unit.video, unit.unit_index, self._read(unit.path))
        limit = self._spec.config.limits.attempts
        if attempt > limit:
            detail = f"workers died {limit} times while they held unit {unit.unit_index}"
            failure = _failure(FailureReason.WORKER_LOST, detail, FailureStage.ANALYSE)
            return _unit_failed(unit, failure)
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
                failure = _failure(reason, repr(error), FailureStage.ANALYSE)
                return [AnalysedUnit(unit=units[0], failure=failure)]
        return [result for unit in units for result in self._analysed([unit])]

    def _settle(self, result: AnalysedUnit) -> Status:
        if result.failure is not None:
            return _unit_failed(result.unit, result.failure)
        return self._store(result.unit, result.data)

    def _read(self, path: str) -> bytes:
        return self._spec.work.store.read(path)

    def _store(self, unit: DecodedUnit, data: bytes) -> Status:
        store = self._spec.work.store
        if self._spec.keep_units and not store.create(unit.path, data):
            there = self._read(unit.path)
            if there != data:
                # A GPU kernel that is not deterministic: the first object wins, and it is said.
                log.warning("%s was stored before with other bytes; kept", store.full(unit.path))
                data = there
        return _describe(unit.path, unit.video, unit.unit_index, data)


def _describe(path: str, video: str, unit_index: int, data: bytes) -> Status:
    entry, bins = describe_unit(path, unit_id(video, unit_index), data, decode_unit(data))
    payload = {
        "unit_index": unit_index,
        "entry": entry.model_dump(),
        "bins": bins.model_dump(),
    }
    return Status(kind="unit", video=video, payload=payload)


def _stored(work: WorkFolder, row: dict[str, Any], unit_index: int) -> Status:
    path = work.unit_path(row["video_id"], row["version"], unit_index)
    return _describe(path, row["video_id"], unit_index, work.store.read(path))


def _unit_failed(unit: DecodedUnit, failure: Failure) -> Status:
    payload = {"unit_index": unit.unit_index, "failure": failure_to_json(failure)}
    return Status(kind="unit", video=unit.video, payload=payload)


def _failure(
    reason: FailureReason, detail: str, stage: FailureStage = FailureStage.DECODE
) -> Failure:
    return Failure(reason=reason, stage=stage, detail=detail)


def _decoder_process() -> DecoderProcess:
    global _decoder  # noqa: PLW0603  one per Ray worker process, kept between tasks
    if _decoder is None:
        _decoder = DecoderProcess()
    return _decoder


_stores: dict[tuple[str, StorageConfig], Store] = {}


def _source_store(root: str, config: StorageConfig) -> Store:
    # One connection per worker process, not one per video.
    return _stores.setdefault((root, config), Store(root or "/", config))
