"""Pass two: frozen statistics and stored analyses to token shards. No video, no GPU, no network.

Each shard is one independent task: read its units in plan order, give every window its rate, keep
the most informative tokens, write the data files, and last the commit record. Names and bytes
depend on the plan, the statistics and the routing alone, so a shard may be written twice, by
anybody, and come out the same.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import ray.data

from infotok_core.router import select
from pipelines.config import RunConfig
from pipelines.errors import PipelineError
from pipelines.observe import Progress
from pipelines.plan import Plan
from pipelines.ray_stream import StreamEndedError, poll
from pipelines.sinks.energon import energon_tar_index
from pipelines.sinks.parquet import parquet_bytes
from pipelines.sinks.webdataset import tar_bytes
from pipelines.storage import Store
from pipelines.work import WorkFolder
from schemas.ids import digest
from schemas.manifest import DataFile, ShardCommit, TotalsBuilder
from schemas.rates import RateRule, TokenDealer, solve_rule
from schemas.statistics import ElboStatistics
from schemas.tokens import NUM_CODES, rows_to_table, token_row
from schemas.units import decode_unit, window_sum
from schemas.windows import StreamFacts, WindowAnalysis

__all__ = ["ShardSpec", "rate_rule", "shard_spec", "tokenise", "tokenise_shard"]

_ROUNDS = 3

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSpec:
    """What every shard task needs to know; small, and pickled to each of them.

    Attributes:
        key: Digest of everything the data files depend on, and of where they go: names the folder
            of the commit records.
        rule: The rate of each window, solved once for the corpus.
        num_codes: Size of the tokenizer's vocabulary.
    """

    config: RunConfig
    plan: Plan
    work: WorkFolder
    output: Store
    rule: RateRule
    key: str
    num_codes: int = NUM_CODES

    def commit_path(self, shard: int) -> str:
        """Name of a shard's commit record in the work folder."""
        return f"commits/{self.key[:16]}/{shard:06d}.json"


def rate_rule(config: RunConfig, statistics: ElboStatistics) -> RateRule:
    """Solve the routing of the configuration over the corpus.

    Raises:
        PipelineError: If the asked rate cannot be met.
    """
    routing = config.routing
    limits = {"rate": routing.rate, "min_rate": routing.min_rate}
    if routing.router == "static":
        return RateRule.static(routing.rate)
    if routing.expected_elbo is not None:
        return RateRule.expected(routing.expected_elbo, **limits)
    if statistics.is_sample and not statistics.bins.weighted:
        raise PipelineError(
            f"the sample of {statistics.num_sampled} videos holds no window with information: "
            "analyse with a larger statistics.sample into another work folder (--work)"
        )
    if routing.budget == "paper":
        return RateRule.paper(statistics.bins, **limits)
    try:
        return solve_rule(statistics.bins, **limits)
    except ValueError as error:
        raise PipelineError(f"routing: {error}") from error


def shard_spec(
    config: RunConfig,
    plan: Plan,
    work: WorkFolder,
    output: Store,
    statistics: ElboStatistics,
    *,
    num_codes: int = NUM_CODES,
    rule: RateRule | None = None,
) -> ShardSpec:
    """Everything pass two depends on, and its digest; without a rule that of the configuration."""
    rule = rule or rate_rule(config, statistics)
    key = digest(
        {
            "plan": plan.head.plan_id,
            "statistics": statistics.digest,
            "rule": rule.model_dump(mode="json"),
            "tokens": config.tokens_identity(),
            "output": output.url,
        }
    )
    return ShardSpec(
        config=config, plan=plan, work=work, output=output, rule=rule, key=key, num_codes=num_codes
    )


def tokenise(
    spec: ShardSpec,
    progress: Progress,
    recompute: Callable[[Sequence[dict[str, Any]]], None] | None = None,
) -> None:
    """Write and commit every shard that has no commit record yet.

    Args:
        recompute: Makes the unit objects of some videos of the plan again (``second_pass =
            recompute``); they are deleted when their shards are committed. None: they are there.

    Raises:
        PipelineError: If a shard cannot be written: an analysis is gone or damaged, or the output
            holds other bytes under one of the names.
    """
    prefix = f"commits/{spec.key[:16]}"
    done = {
        int(path.removeprefix(prefix + "/").removesuffix(".json"))
        for path, _ in spec.work.store.list(prefix)
    }
    progress.done = len(done)
    progress.start()
    waiting = [shard for shard in range(spec.plan.head.shards) if shard not in done]
    if recompute is None:
        _rounds(waiting, spec, progress)
        return
    for shards, rows in _groups(waiting, spec):
        recompute(rows)
        _rounds(shards, spec, progress)
        for receipt in spec.work.receipts(row["video_id"] for row in rows):
            for entry in receipt.units:
                spec.work.store.delete(entry.path)


def _groups(
    shards: Sequence[int], spec: ShardSpec
) -> Iterator[tuple[list[int], list[dict[str, Any]]]]:
    """Shards that together fill a wave, with their videos: so much is stored at a time."""
    group: list[int] = []
    rows: list[dict[str, Any]] = []
    for shard in shards:
        group.append(shard)
        rows += spec.plan.shard(shard)
        if len(rows) >= spec.config.runtime.wave_videos:
            yield group, rows
            group, rows = [], []
    if group:
        yield group, rows


def _rounds(waiting: Sequence[int], spec: ShardSpec, progress: Progress) -> None:
    for _ in range(_ROUNDS):
        if not waiting:
            return
        finished = _run(waiting, spec, progress)
        waiting = [shard for shard in waiting if shard not in finished]
    if waiting:
        raise PipelineError(
            f"{len(waiting)} shards could not be written in {_ROUNDS} rounds (first: {waiting[0]})"
        )


def _run(shards: Sequence[int], spec: ShardSpec, progress: Progress) -> set[int]:
    dataset = ray.data.from_arrow([pa.table({"shard": [shard]}) for shard in shards]).map_batches(
        _shard_task,  # pyright: ignore[reportArgumentType]  fn_kwargs are not typed
        fn_kwargs={"spec": spec},
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=1,
    )
    finished: set[int] = set()
    try:
        for batch in poll(dataset, progress):
            for row in batch.to_pylist():
                if row["error"]:
                    raise PipelineError(row["error"])
                finished.add(row["shard"])
                progress.advance(windows=row["clips"], tokens=row["tokens"])
                progress.item_done(0)
    except StreamEndedError as error:
        log.warning("Ray ended early, what is missing is run again: %s", error)
    return finished


def _shard_task(batch: pa.Table, *, spec: ShardSpec) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for shard in batch["shard"].to_pylist():
        row = {"shard": shard, "clips": 0, "tokens": 0, "error": ""}
        try:
            commit = tokenise_shard(spec, shard)
            row |= {"clips": commit.totals.clips, "tokens": commit.totals.tokens}
        except (PipelineError, OSError) as error:
            # Carried as data: Ray would wrap it, and retry what no retry can mend.
            row["error"] = f"shard {shard}: {error}"
        rows.append(row)
    return pa.Table.from_pylist(rows)


def tokenise_shard(spec: ShardSpec, shard: int) -> ShardCommit:
    """Write the data files of one shard and commit it. Safe to repeat.

    Raises:
        ConflictError: If a name is taken by other bytes.
    """
    extra = spec.plan.head.extra_fields()
    files: list[DataFile] = []
    totals = TotalsBuilder()
    videos: set[str] = set()
    rows_of_shard = _rows(spec, spec.plan.shard(shard))
    for part, rows in enumerate(_parts(rows_of_shard, spec.config.output.file_bytes)):
        for row in rows:
            totals.add(row)
            videos.add(row["video_id"])
        for path, data, kind in _encode(spec, shard, part, rows, extra):
            spec.output.publish(path, data)
            if kind == "webdataset":
                # Beside the tar and not in the manifest: Energon then needs no `prepare`.
                spec.output.publish(f"{path}.idx", energon_tar_index(data))
            files.append(DataFile.of(path, data, rows=rows, shard=shard, format=kind))
    commit = ShardCommit(
        tokens_key=spec.key,
        shard=shard,
        videos=len(videos),
        files=tuple(sorted(files, key=lambda file: file.path)),
        totals=totals.freeze(),
    )
    spec.work.store.publish(spec.commit_path(shard), commit.to_bytes())
    return commit


def _encode(
    spec: ShardSpec, shard: int, part: int, rows: list[dict[str, Any]], extra: list[pa.Field]
) -> Iterator[tuple[str, bytes, Literal["parquet", "webdataset"]]]:
    output = spec.config.output
    name = f"{output.split}-{shard:06d}-{part:02d}"
    if output.format in ("parquet", "both"):
        table = rows_to_table(rows, extra)
        data = parquet_bytes(
            table,
            encoding=output.parquet_encoding,
            row_group_rows=output.row_group_rows,
            tokenizer=spec.plan.head.tokenizer,
        )
        yield f"data/{name}.parquet", data, "parquet"
    if output.format in ("webdataset", "both"):
        yield f"wds/{name}.tar", tar_bytes(rows), "webdataset"


def _rows(spec: ShardSpec, videos: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    dealer = TokenDealer(spec.rule)
    receipts = spec.work.receipts(row["video_id"] for row in videos)
    for row, receipt in zip(videos, receipts, strict=True):
        if receipt.failure is not None:
            continue
        facts = receipt.stream_facts()
        extra = json.loads(row["extra"]) if row["extra"] else {}
        for entry in receipt.units:
            for window in decode_unit(spec.work.read_unit(entry)):
                yield _row(spec, dealer, window, facts, row, extra)


def _row(
    spec: ShardSpec,
    dealer: TokenDealer,
    window: WindowAnalysis,
    facts: StreamFacts,
    video: dict[str, Any],
    extra: dict[str, Any],
) -> dict[str, Any]:
    cells = window.codes.size
    total = window_sum(window.information)
    count, rate = dealer.deal(total, cells)
    keep = select(window.information.reshape(-1), count)
    return token_row(
        window,
        np.asarray(keep, bool).reshape(window.codes.shape),
        facts=facts,
        video=video["video_id"],
        source=video["uri"],
        tokenizer=spec.plan.head.tokenizer,
        rate_target=rate,
        num_codes=spec.num_codes,
        extra=extra,
    )


def _parts(rows: Iterator[dict[str, Any]], target_bytes: int) -> Iterator[list[dict[str, Any]]]:
    """Rows of one data file each; cut by their raw size, so both formats hold the same rows."""
    part: list[dict[str, Any]] = []
    filled = 0
    for row in rows:
        size = 2 * row["num_tokens"] + len(row["mask"]) + 256
        if part and filled + size > target_bytes:
            yield part
            part, filled = [], 0
        part.append(row)
        filled += size
    if part:
        yield part
