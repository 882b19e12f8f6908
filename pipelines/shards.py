"""One shard of the token corpus: what it depends on, and how it is written.

Read its units in plan order, give every window its rate, keep the most informative tokens, write
the data files, and last the commit record. Names and bytes depend on the plan, the statistics and
the routing alone, so a shard may be written twice, by anybody, and come out the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyarrow as pa

from pipelines.config import RunConfig
from pipelines.dealt_rows import dealt_row
from pipelines.plan import Plan
from pipelines.rate_rules import rate_rule
from pipelines.receipt_store import ReceiptStore
from pipelines.sinks.energon import energon_tar_index
from pipelines.sinks.parquet import parquet_bytes
from pipelines.sinks.webdataset import tar_bytes
from pipelines.storage import Store
from pipelines.work import WorkFolder
from schemas.dealing import Rule, TokenDealer
from schemas.ids import digest
from schemas.manifest import DataFile, ShardCommit, TotalsBuilder
from schemas.statistics import ElboStatistics
from schemas.tokens import NUM_CODES, rows_to_table
from schemas.units import decode_unit

__all__ = ["ShardSpec", "shard_spec", "tokenise_shard"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSpec:
    """What every shard task needs to know; small, and pickled to each of them.

    Attributes:
        rule: What each window gets, solved once for the corpus.
        made_from: Everything the data files depend on.
        key: Its digest, the identity of pass two: the same wherever the output is.
        commits: Folder of the commit records; of this output alone, since several may share a work
            folder and a record says that the files are *there*.
        num_codes: Size of the tokenizer's vocabulary.
    """

    config: RunConfig
    plan: Plan
    work: WorkFolder
    output: Store
    rule: Rule
    made_from: dict[str, Any]
    key: str
    commits: str
    num_codes: int = NUM_CODES

    def commit_path(self, shard: int) -> str:
        """Name of a shard's commit record in the work folder."""
        return f"{self.commits}/{shard:06d}.json"

    def as_before(self) -> ShardSpec:
        """The same under the names of an output begun when its path was part of its identity."""
        key = digest({**self.made_from, "output": self.output.url})
        return replace(self, key=key, commits=f"commits/{key[:16]}")


def shard_spec(
    config: RunConfig,
    plan: Plan,
    work: WorkFolder,
    output: Store,
    statistics: ElboStatistics,
    *,
    num_codes: int = NUM_CODES,
    rule: Rule | None = None,
) -> ShardSpec:
    """Everything pass two depends on, and its digest; without a rule that of the configuration."""
    rule = rule or rate_rule(config, statistics)
    made_from: dict[str, Any] = {
        "plan": plan.head.plan_id,
        "statistics": statistics.digest,
        "rule": rule.model_dump(mode="json"),
        "tokens": config.tokens_identity(),
    }
    key = digest(made_from)
    return ShardSpec(
        config=config,
        plan=plan,
        work=work,
        output=output,
        rule=rule,
        made_from=made_from,
        key=key,
        commits=f"commits/{key[:16]}-{digest(output.url)[:8]}",
        num_codes=num_codes,
    )


def tokenise_shard(
    spec: ShardSpec, shard: int, *, watch: Callable[[str], None] = lambda _: None
) -> ShardCommit:
    """Write the data files of one shard and commit it. Safe to repeat.

    Args:
        watch: Is told what comes next: the reading of a video, the writing of a part.

    Raises:
        ConflictError: If a name is taken by other bytes.
    """
    extra = spec.plan.head.extra_fields()
    files: list[DataFile] = []
    totals = TotalsBuilder()
    videos: set[str] = set()
    rows_of_shard = _rows(spec, spec.plan.shard(shard), watch)
    for part, rows in enumerate(_parts(rows_of_shard, spec.config.output.file_bytes)):
        watch(f"writing part {part}")
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


def _rows(
    spec: ShardSpec, videos: Sequence[dict[str, Any]], watch: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    dealer = TokenDealer(spec.rule)
    receipts = ReceiptStore(spec.plan, spec.work.store, {row["block"] for row in videos})
    for row, receipt in zip(videos, receipts.read(videos), strict=True):
        if receipt.failure is not None:
            continue
        watch(f"reading {row['uri']}")
        facts = receipt.stream_facts()
        extra = json.loads(row["extra"]) if row["extra"] else {}
        for entry in receipt.units:
            for window in decode_unit(spec.work.read_unit(entry)):
                yield dealt_row(
                    window,
                    dealer,
                    facts,
                    row,
                    tokenizer=spec.plan.head.tokenizer,
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
