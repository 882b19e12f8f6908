"""The first Ray stage of pass one, decode tasks, and what both stages share. Knows no torch.

Nothing a video does may fail a task: every failure of a video becomes its last row. What remains,
the death of a worker, is Ray's to retry; starts are counted durably beforehand, so that a video or
unit that kills its workers is set aside after a few of them. The second stage is `tokenizer_actor`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.config import RunConfig, StorageConfig
from pipelines.decode import DecodeError, DecodeRequest, DecoderProcess
from pipelines.decode_types import failure_to_json
from pipelines.errors import StorageError
from pipelines.receipt_store import block_folder
from pipelines.records import (
    DecodedUnit,
    Status,
    statuses_to_table,
    unit_to_table,
)
from pipelines.source_versions import other_version
from pipelines.sources import source_url
from pipelines.storage import Store, storage_options
from pipelines.unit_status import stored_unit
from pipelines.work import WorkFolder
from schemas.failures import Failure, FailureReason, FailureStage
from schemas.ids import WINDOWS_PER_UNIT
from schemas.windows import WindowSpan

if TYPE_CHECKING:
    # A decode task has no use for torch: 2 CPU-seconds and 200 MB in each of their workers.
    from pipelines.analyser import VideoTokenizer

__all__ = ["DecodeVideos", "StageSpec", "decode_videos"]

log = logging.getLogger(__name__)

_decoder: DecoderProcess | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSpec:
    """What every worker of pass one needs to know; small, and pickled to each of them.

    Attributes:
        source_root: What the URIs of the plan are relative to.
        run_id: Names this driver: starts are counted per driver.
        device: ``cpu`` or ``cuda``, resolved.
        keep_units: Store unit objects; False only measures them (``second_pass = recompute``).
        load: Makes the tokenizer in the actor; None: that of the configuration. A benchmark hands
            in another.
    """

    config: RunConfig
    source_root: str
    work: WorkFolder
    run_id: str
    device: str
    keep_units: bool = True
    load: Callable[[RunConfig, str], VideoTokenizer] | None = None


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
        work, run_id = self._spec.work, self._spec.run_id
        name = work.start_name(block_folder(row["block"]), row["video_id"])
        attempt = work.claim(name, run_id=run_id, limit=limits.attempts)
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
                yield statuses_to_table([self._stored(row, index)])
        except DecodeError as error:
            yield self._end(row, attempt, error.failure, decoder)
        except Exception as error:
            log.exception("decoding %s failed", row["uri"])
            decoder.kill()
            yield self._end(row, attempt, _failure(FailureReason.INTERNAL, repr(error)))
        else:
            yield self._end(row, attempt, None, decoder)
        if attempt > 1:
            work.release(name, run_id=run_id, starts=attempt)

    def _units(self, decoder: DecoderProcess, row: dict[str, Any]) -> Iterator[DecodedUnit]:
        memory = _UnitMemory()
        spans: list[WindowSpan] = []
        for window in decoder.windows(self._request(row), buffers=memory.place):
            if spans and _unit_of(spans[0]) != _unit_of(window.span):
                yield self._unit(row, spans, memory)
                spans = []
            spans.append(window.span)
        if spans:
            yield self._unit(row, spans, memory)

    def _unit(
        self, row: dict[str, Any], spans: list[WindowSpan], memory: _UnitMemory
    ) -> DecodedUnit:
        unit_index = _unit_of(spans[0])
        return DecodedUnit(
            video=row["video_id"],
            unit_index=unit_index,
            path=self._path(row, unit_index),
            spans=tuple(spans),
            frames_NTHWC=memory.take(unit_index, len(spans)),
        )

    def _stored(self, row: dict[str, Any], unit_index: int) -> Status:
        path = self._path(row, unit_index)
        data = self._spec.work.store.read(path)
        floor = self._spec.config.routing.token_floor
        return stored_unit(path, row["video_id"], unit_index, data, token_floor=floor)

    def _path(self, row: dict[str, Any], unit_index: int) -> str:
        return self._spec.work.unit_path(
            row["video_id"], row["version"], unit_index, block=row["block"]
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
            found = other_version(store, url, row["version"])
        except (OSError, StorageError):
            # The decoder meets the same error and names it better.
            return None
        return None if found is None else f"planned version {row['version']}, found {found}"

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


class _UnitMemory:
    """Windows of a unit are copied out of the decoding process side by side, and never again."""

    def __init__(self) -> None:
        self._units: dict[int, NDArray[np.uint8]] = {}

    def place(self, span: WindowSpan, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Where the frames of a window go."""
        unit_index, window = divmod(span.window_index, WINDOWS_PER_UNIT)
        if unit_index not in self._units:
            # Pages that no window touches cost nothing.
            self._units[unit_index] = np.empty((WINDOWS_PER_UNIT, *shape), np.uint8)
        return self._units[unit_index][window]

    def take(self, unit_index: int, num_windows: int) -> NDArray[np.uint8]:
        """The frames of a unit, all of whose windows have come."""
        return self._units.pop(unit_index)[:num_windows]


def decode_videos(batch: pa.Table, *, spec: StageSpec) -> Iterator[pa.Table]:
    """`DecodeVideos` as the plain function that Ray Data runs as tasks."""
    yield from DecodeVideos(spec)(batch)


def _unit_of(span: WindowSpan) -> int:
    return span.window_index // WINDOWS_PER_UNIT


def _failure(reason: FailureReason, detail: str) -> Failure:
    return Failure(reason=reason, stage=FailureStage.DECODE, detail=detail)


def _decoder_process() -> DecoderProcess:
    global _decoder  # noqa: PLW0603  one per Ray worker process, kept between tasks
    if _decoder is None:
        _decoder = DecoderProcess()
    return _decoder


_stores: dict[tuple[str, StorageConfig], Store] = {}


def _source_store(root: str, config: StorageConfig) -> Store:
    # One connection per worker process, not one per video.
    return _stores.setdefault((root, config), Store(root or "/", config))
