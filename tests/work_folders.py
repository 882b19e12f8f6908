"""A work folder as pass one leaves it, from windows made by hand: no video, no network, no Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from strategies import FACTS, TOKENIZER

from pipelines.config import (
    AnalysisConfig,
    OutputConfig,
    RoutingConfig,
    RunConfig,
    WindowConfig,
)
from pipelines.decode_types import failure_to_json
from pipelines.id_set import IdSet
from pipelines.plan import Plan, ensure_plan
from pipelines.receipt_store import ReceiptStore
from pipelines.receipts import ReceiptBuilder
from pipelines.records import Status
from pipelines.shards import ShardSpec, shard_spec, tokenise_shard
from pipelines.sources import Source, SourceObject
from pipelines.statistics import freeze_statistics
from pipelines.storage import Store
from pipelines.unit_status import stored_unit
from pipelines.work import WorkFolder
from schemas.failures import Failure, FailureReason, FailureStage
from schemas.ids import WINDOWS_PER_UNIT, unit_id, video_id
from schemas.manifest import ShardCommit
from schemas.receipts import VideoReceipt
from schemas.statistics import ElboStatistics
from schemas.tokens import unpack_mask
from schemas.units import encode_unit
from schemas.windows import WindowAnalysis, WindowSpan

Videos = Mapping[str, Sequence[WindowAnalysis] | Failure]
"""What became of each URI."""

BROKEN = Failure(reason=FailureReason.TRUNCATED, stage=FailureStage.DECODE, detail="no more data")

WINDOW = WindowConfig(frames=9)
"""That of every `window`."""


def window(
    information: np.ndarray | float, *, index: int = 0, shape: tuple[int, int, int] = (3, 8, 8)
) -> WindowAnalysis:
    """A window with this information (a number fills it) and seeded codes."""
    values = np.broadcast_to(np.asarray(information, np.float16), shape).copy()
    rng = np.random.default_rng([7, index])
    return WindowAnalysis(
        span=WindowSpan(
            window_index=index,
            start_frame=9 * index,
            num_frames=9,
            start_time_s=index * 0.3,
            end_time_s=(index + 1) * 0.3,
        ),
        codes=rng.integers(0, 64000, shape).astype(np.uint16),
        information=values,
    )


def source_of(
    sizes: Mapping[str, int],
    *,
    version: str = "v1",
    extras: Mapping[str, Mapping[str, Any]] | None = None,
    extra_schema: pa.Schema | None = None,
) -> Source:
    """A listing of objects that nobody will open."""
    objects = (
        SourceObject(uri=uri, size=size, version=version, extra=(extras or {}).get(uri, {}))
        for uri, size in sizes.items()
    )
    return Source(root="/source", objects=objects, extra_schema=extra_schema or pa.schema([]))


def statuses_of(
    video: str,
    uri: str,
    windows: Sequence[WindowAnalysis] | Failure,
    *,
    token_floor: float | None = None,
) -> list[Status]:
    """The rows that pass one sends of a video, without storing anything."""
    failure = windows if isinstance(windows, Failure) else None
    found = [] if isinstance(windows, Failure) else list(windows)
    statuses = [
        stored_unit(*_unit(video, index, part), part, token_floor=token_floor)
        for index, part in _units(found)
    ]
    end = {
        "uri": uri,
        "version": "v1",
        "attempts": 1,
        "windows": len(found),
        "units": len(statuses),
        "facts": asdict(FACTS) if failure is None else None,
        "num_frames_decoded": 9 * len(found),
        "num_frames_dropped": 0,
        "failure": failure_to_json(failure) if failure else None,
    }
    return [*statuses, Status(kind="end", video=video, payload=end)]


def _units(windows: Sequence[WindowAnalysis]) -> list[tuple[int, Sequence[WindowAnalysis]]]:
    starts = range(0, len(windows), WINDOWS_PER_UNIT)
    return [
        (start // WINDOWS_PER_UNIT, windows[start : start + WINDOWS_PER_UNIT]) for start in starts
    ]


def _unit(video: str, index: int, windows: Sequence[WindowAnalysis]) -> tuple[str, str, int, bytes]:
    """Path, video, index and bytes."""
    data = encode_unit(windows, video=video, unit_index=index, tokenizer=TOKENIZER)
    return f"units/000000/{unit_id(video, index)}-0123456789ab.parquet", video, index, data


def store_video(
    work: WorkFolder,
    uri: str,
    windows: Sequence[WindowAnalysis] | Failure,
    *,
    token_floor: float | None = None,
) -> None:
    """Units and receipt of a video."""
    video = video_id(uri)
    builder = ReceiptBuilder()
    for status in statuses_of(video, uri, windows, token_floor=token_floor):
        builder.add(status)
    if not isinstance(windows, Failure):
        for index, part in _units(windows):
            path, *_, data = _unit(video, index, part)
            work.store.publish(path, data)
    receipt = builder.receipt(video)
    assert receipt is not None
    work.store.publish(f"videos/{video}.json", receipt.published())


@dataclass(frozen=True, kw_only=True)
class Analysed:
    """A finished pass one."""

    plan: Plan
    work: WorkFolder
    config: RunConfig

    def receipt(self, uri: str) -> VideoReceipt:
        """The receipt of a video."""
        rows = [row for row in self.plan.rows() if row["uri"] == uri]
        [receipt] = ReceiptStore(self.plan, self.work.store).read(rows)
        return receipt

    def spec(self, output: Path | str, **changes: Any) -> ShardSpec:
        """What pass two needs; keywords are fields of the routing or of the output."""
        config = configured(self.config, **changes)
        return shard_spec(config, self.plan, self.work, Store(str(output)), self.statistics())

    def statistics(self, sample: IdSet | None = None) -> ElboStatistics:
        """What the passes meet at, as the configuration wants it."""
        floor = self.config.routing.token_floor
        return freeze_statistics(self.plan, self.work, sample, token_floor=floor)


def configured(config: RunConfig, **changes: Any) -> RunConfig:
    """A configuration with other fields of the routing or of the output; validated."""
    document = config.model_dump()
    for name, value in changes.items():
        table = "routing" if name in RoutingConfig.model_fields else "output"
        assert name in RoutingConfig.model_fields | OutputConfig.model_fields
        document[table][name] = value
    return RunConfig.model_validate(document)


def analysed(
    root: Path,
    videos: Videos,
    *,
    extras: Mapping[str, Mapping[str, Any]] | None = None,
    extra_schema: pa.Schema | None = None,
    size: int = 1000,
    information: Literal["elbo", "latent"] = "elbo",
    **changes: Any,
) -> Analysed:
    """Plan, units and receipts of these videos below ``root``."""
    start = RunConfig(analysis=AnalysisConfig(information=information), window=WINDOW)
    config = configured(start, **changes)
    store = Store(str(root))
    source = source_of(dict.fromkeys(videos, size), extras=extras, extra_schema=extra_schema)
    plan = ensure_plan(source, config, tokenizer=TOKENIZER, work=store)
    work = WorkFolder(store=store, analysis_key="a" * 64)
    for uri, windows in videos.items():
        store_video(work, uri, windows, token_floor=config.routing.token_floor)
    return Analysed(plan=plan, work=work, config=config)


def noise(
    seed: int, level: float, *, index: int = 0, shape: tuple[int, int, int] = (3, 8, 8)
) -> WindowAnalysis:
    """A window whose positions all differ."""
    rng = np.random.default_rng(seed)
    return window(level * rng.gamma(2.0, 0.5, shape), index=index, shape=shape)


def video(seed: int, num_windows: int, level: float = 0.1) -> list[WindowAnalysis]:
    """Windows of `noise`."""
    return [noise(100 * seed + index, level, index=index) for index in range(num_windows)]


def write(spec: ShardSpec) -> list[ShardCommit]:
    """Every shard of a corpus."""
    return [tokenise_shard(spec, shard) for shard in range(spec.plan.head.shards)]


def rows_of(spec: ShardSpec) -> list[dict[str, Any]]:
    """All rows; within a file they lie in the order of their keys."""
    files = sorted(Path(spec.output.url, "data").glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def mask_of(row: dict[str, Any]) -> np.ndarray:
    """Which positions a row keeps."""
    return unpack_mask(row["mask"], (row["grid_t"], row["grid_h"], row["grid_w"]))
