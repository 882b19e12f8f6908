"""A corpus of any number of videos that were never made, and what a driver does with it."""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import botocore.parsers
import botocore.session
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scale_store import CountingBucket, NamedObjects, mount

from infotok_core.shape import TokenShape
from pipelines.block_keeper import BlockKeeper
from pipelines.config import RunConfig, SourceConfig, StorageConfig
from pipelines.finalise import finalise
from pipelines.observe import Progress, RunControl
from pipelines.plan import Plan, ensure_plan, known_plan, load_plan
from pipelines.plan_draft import PLAN_GROUP_ROWS, Shards, plan_head
from pipelines.receipt_store import ReceiptStore, block_folder
from pipelines.shards import ShardSpec, shard_spec
from pipelines.sources import Source, open_source
from pipelines.statistics import freeze_statistics, load_statistics
from pipelines.storage import Store
from pipelines.waves import waves
from pipelines.work import WorkFolder
from schemas.bins import ElboAccumulator, log_bin
from schemas.ids import video_id
from schemas.manifest import RATE_BINS, TOKEN_MANTISSA_BITS, DataFile, ShardCommit, Totals
from schemas.plan import BLOCK_VIDEOS, PLAN_SCHEMA
from schemas.receipt_packs import PackedReceipt
from schemas.receipts import UnitEntry, VideoReceipt
from schemas.windows import StreamFacts

__all__ = ["STEPS", "Corpus"]

STEPS = (
    "page",
    "plan", "half", "resume", "trust", "block", "rest", "statistics", "shard", "commits",
    "finalise",
)  # fmt: skip
"""In the order in which they build on one another."""

_WINDOWS = 4
_CELLS = 9 * 32 * 32
_KEPT = _CELLS // 2
_IN_FLIGHT = 2000
"""Videos of the first open block that were finished when the driver died."""
_TOKENIZER = "0" * 64
_SHAPE = TokenShape(spatial_compression=8, temporal_compression=4, codebook_size=64_000)


class Corpus:
    """One source, one work folder and one output in one bucket."""

    def __init__(self, folder: Path, videos: int) -> None:
        self._videos = videos
        self._config = RunConfig()
        self._work = WorkFolder(store=Store("s3://bucket/work"), analysis_key="a" * 64)
        folder.mkdir(parents=True, exist_ok=True)
        self.bucket = CountingBucket(folder)
        finished = sum(BLOCK_VIDEOS for _ in (folder / "work/receipts").glob("*/*.parquet"))
        self.bucket.named = (
            NamedObjects(
                prefix="videos/", count=videos, size=_size, etag=_etag,
                key=lambda i: f"videos/{_uri(i)}",
                near=lambda key: int(key[len("videos/0000000/clip-") : -len(".mp4")] or 0),
            ),
            NamedObjects(
                prefix="work/units/", size=_size, count=min(finished + _IN_FLIGHT, videos),
                key=self._unit_key, etag=_etag,
                near=lambda key: BLOCK_VIDEOS * int(key.split("/")[2] or 0),
            ),
        )  # fmt: skip
        mount(self.bucket)

    def plan(self) -> dict[str, Any]:
        """List the source and fix the plan."""
        return {"shards": self._ensure().head.shards}

    def page(self) -> dict[str, Any]:
        """What this store leaves out of a listing: botocore's parsing of 1000 names."""
        items = "".join(
            f"<Contents><Key>videos/{_uri(index)}</Key><ETag>&quot;{_etag(index)}&quot;</ETag>"
            "<LastModified>2026-11-25T00:00:00.000Z</LastModified><Size>1000000</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
            for index in range(1000)
        )
        name = "http://s3.amazonaws.com/doc/2006-03-01/"
        body = f'<ListBucketResult xmlns="{name}">{items}</ListBucketResult>'.encode()
        model = botocore.session.get_session().get_service_model("s3")
        shape = model.operation_model("ListObjectsV2").output_shape
        parser = botocore.parsers.create_parser("rest-xml")
        began = time.process_time()
        answer = parser.parse({"status_code": 200, "headers": {}, "body": body}, shape)
        assert len(answer["Contents"]) == 1000
        return {"parse_ms": round(1000 * (time.process_time() - began))}

    def quick(self) -> dict[str, Any]:
        """`plan` for those who cannot wait: with made-up ids, for `trust` alone."""
        shards, sink = Shards(self._config), pa.BufferOutputStream()
        with pq.ParquetWriter(sink, PLAN_SCHEMA, compression="zstd") as writer:
            for first in range(0, self._videos, PLAN_GROUP_ROWS):
                indices = np.arange(first, min(first + PLAN_GROUP_ROWS, self._videos))
                sizes = 1_000_000 + indices % 500_000
                ends = shards.num_bytes + np.cumsum(sizes)
                columns = {
                    "uri": _uris(indices), "video_id": _digests(first, len(indices)),
                    "size": sizes, "version": _digests(first + 1, len(indices)),
                    "shard": ends // self._config.output.shard_source_bytes,
                    "extra": pa.nulls(len(indices), pa.string()),
                }  # fmt: skip
                shards.num_bytes, shards.videos = int(ends[-1]), shards.videos + len(indices)
                shards.count = int(columns["shard"][-1]) + 1
                columns["shard"] = columns["shard"].astype(np.int32)
                writer.write_table(
                    pa.table(columns, schema=PLAN_SCHEMA), row_group_size=PLAN_GROUP_ROWS
                )
        head = plan_head(
            self._source(), self._config, tokenizer=_TOKENIZER, listing_digest="", shards=shards
        )
        self._work.store.publish("plan.parquet", sink.getvalue().to_pybytes())
        self._work.store.publish("plan.json", head.model_dump_json(indent=1).encode())
        return {"shards": head.shards}

    def half(self) -> dict[str, Any]:
        """Packs of half the blocks, and the receipts of a block that was under way."""
        plan = load_plan(self._work.store)
        self._pack(plan, range(plan.blocks // 2))
        receipts = ReceiptStore(plan, self._work.store, [])
        for row in plan.block(plan.blocks // 2)[:_IN_FLIGHT]:
            receipts.put(_receipt(row))
        return {}

    def names(self) -> dict[str, Any]:
        """`half` for those who cannot wait: all packs are links to one, which nobody opens."""
        plan = load_plan(self._work.store)
        self._pack(plan, range(1))
        folder = self.bucket.folder / "work/receipts"
        for block in range(1, plan.blocks // 2):
            (folder / block_folder(block)).mkdir()
            (folder / block_folder(block) / "000.parquet").hardlink_to(
                folder / block_folder(0) / "000.parquet"
            )
        receipts = ReceiptStore(plan, self._work.store, [])
        for row in plan.block(plan.blocks // 2)[:_IN_FLIGHT]:
            receipts.put(_receipt(row))
        return {}

    def resume(self) -> dict[str, Any]:
        """From a listing of the source to the first wave."""
        return self._first_wave(self._ensure())

    def trust(self) -> dict[str, Any]:
        """From the stored plan to the first wave."""
        plan = known_plan(self._source(), self._config, tokenizer=_TOKENIZER, work=self._work.store)
        assert plan is not None
        return self._first_wave(plan)

    def block(self) -> dict[str, Any]:
        """What all of a run does to the store for the videos of a block; its last ones."""
        plan = load_plan(self._work.store)
        keeper = BlockKeeper(plan, self._work)
        number = plan.blocks - 2
        rows = plan.block(number)
        folder = block_folder(number)
        self.bucket.requests.clear()
        for row in rows:
            video = row["video_id"]
            for name in (video, f"{video}-u00000"):
                self._work.claim(self._work.start_name(folder, name), run_id="run", limit=3)
            path = self._work.unit_path(video, row["version"], 0, block=number)
            self._work.store.create(path.replace("units/", "made/"), b"unit")
            keeper.put(_receipt(row))
        keeper.wave_done(rows)
        return {"block_videos": len(rows)}

    def rest(self) -> dict[str, Any]:
        """Packs of all blocks that have none."""
        plan = load_plan(self._work.store)
        self._pack(plan, range(plan.blocks))
        return {}

    def statistics(self) -> dict[str, Any]:
        """Fold all receipts."""
        statistics = freeze_statistics(load_plan(self._work.store), self._work)
        return {"windows": statistics.windows}

    def shard(self) -> dict[str, Any]:
        """Rows and receipts of one shard in the middle."""
        plan = load_plan(self._work.store)
        rows = plan.shard(plan.head.shards // 2)
        receipts = ReceiptStore(plan, self._work.store, {row["block"] for row in rows})
        return {"shard_videos": sum(1 for _ in receipts.read(rows))}

    def commits(self) -> dict[str, Any]:
        """Commit records of all shards, as if their files were there."""
        spec = self._spec()
        counts: dict[int, int] = {}
        for _, table in spec.plan.columns("shard"):
            for entry in table["shard"].value_counts().to_pylist():
                counts[entry["values"]] = counts.get(entry["values"], 0) + entry["counts"]
        for shard, videos in counts.items():
            self._work.store.publish(spec.commit_path(shard), _commit(spec, shard, videos))
        return {"shards": len(counts)}

    def finalise(self) -> dict[str, Any]:
        """From commit records to the manifest, garbage included."""
        spec = self._spec()
        summary = finalise(spec, load_statistics(spec.plan, self._work), _SHAPE)
        return {"videos_committed": summary["videos_committed"]}

    def _ensure(self) -> Plan:
        return ensure_plan(
            self._source(), self._config, tokenizer=_TOKENIZER, work=self._work.store
        )

    def _source(self) -> Source:
        return open_source("s3://bucket/videos", SourceConfig(), StorageConfig())

    def _spec(self) -> ShardSpec:
        plan = load_plan(self._work.store)
        statistics = load_statistics(plan, self._work)
        return shard_spec(self._config, plan, self._work, Store("s3://bucket/out"), statistics)

    def _first_wave(self, plan: Plan) -> dict[str, Any]:
        control = RunControl(run_id="run", clock=time.monotonic, say=print)
        progress = Progress(
            control=control, stage="analyse", total=plan.head.videos,
            total_bytes=plan.head.num_bytes, interval_s=1e9, watchdog_s=1e9,
        )  # fmt: skip
        keeper = BlockKeeper(plan, self._work)
        wave = next(waves(plan, keeper.finished, None, progress, self._config.runtime.wave_videos))
        leftovers = self._work.leftover_units(sorted({row["block"] for row in wave}))
        return {"finished": progress.done, "wave": len(wave), "leftovers": len(leftovers)}

    def _pack(self, plan: Plan, blocks: Sequence[int]) -> None:
        receipts = ReceiptStore(plan, self._work.store)
        written = _Writer()
        wanted = {block for block in blocks if not receipts.is_packed(block)}
        for block in sorted(wanted):
            rows = plan.block(block)
            receipts.pack(block, {row["video_id"]: written.receipt(row) for row in rows})

    def _unit_key(self, index: int) -> str:
        block, place = divmod(index, BLOCK_VIDEOS)
        return f"work/units/{block_folder(block)}/{_unit_names(block, self._videos)[place]}"


class _Writer:
    """Receipts made by filling in a few real ones: a thousand times as fast."""

    def __init__(self) -> None:
        row = {"video_id": "f" * 32, "uri": "{uri}", "version": "{version}", "block": 0}
        self._forms = [_receipt(row, seed).published().decode() for seed in range(64)]

    def receipt(self, row: dict[str, Any]) -> PackedReceipt:
        form = self._forms[int(row["video_id"][:2], 16) % len(self._forms)]
        text = form.replace("f" * 32, row["video_id"]).replace("{uri}", row["uri"])
        text = text.replace("{version}", row["version"])
        text = text.replace("units/000000", f"units/{block_folder(row['block'])}")
        sha256 = hashlib.sha256(row["video_id"].encode()).hexdigest()
        return PackedReceipt(row["video_id"], None, 1, text.replace("e" * 64, sha256).encode())


def _receipt(row: dict[str, Any], seed: int = 0) -> VideoReceipt:
    bins = ElboAccumulator()
    for window in range(_WINDOWS):
        bins.add((1 + seed * _WINDOWS + window) * 1_000_003 * 17, _CELLS)
    video = row["video_id"]
    entry = UnitEntry(
        unit_id=f"{video}-u00000",
        path=f"units/{block_folder(row['block'])}/{video}-u00000-0123456789ab.parquet",
        windows=_WINDOWS, tokens=_WINDOWS * _CELLS, sha256="e" * 64, num_bytes=140_000,
    )  # fmt: skip
    facts = StreamFacts(
        codec="h264", container="mov,mp4,m4a,3gp,3g2,mj2", pix_fmt="yuv420p", source_width=1280,
        source_height=720, width=256, height=256, rotation=0, source_fps=24.0, fps=24.0,
        duration_s=5.5,
    )  # fmt: skip
    return VideoReceipt(
        video_id=video, uri=row["uri"], version=row["version"], status="analysed",
        facts=asdict(facts), windows=_WINDOWS, tokens=_WINDOWS * _CELLS,
        units=(entry,), num_frames_decoded=33 * _WINDOWS, bins=bins.freeze(),
    )  # fmt: skip


def _commit(spec: ShardSpec, shard: int, videos: int) -> bytes:
    clips = videos * _WINDOWS
    rates = [0] * RATE_BINS
    rates[(_KEPT * RATE_BINS - 1) // _CELLS] = clips
    totals = Totals(
        clips=clips, tokens=clips * _KEPT, cells=clips * _CELLS, pixels=clips * 33 * 256 * 256,
        rate_histogram=tuple(rates),
        token_histogram=((log_bin(_KEPT, mantissa_bits=TOKEN_MANTISSA_BITS), clips),),
    )  # fmt: skip
    file = DataFile(
        path=f"data/train-{shard:06d}-00.parquet", bytes=2 * totals.tokens, sha256="d" * 64,
        clips=clips, tokens=totals.tokens, min_clip_id="0", max_clip_id="f", shard=shard,
        format="parquet",
    )  # fmt: skip
    commit = ShardCommit(
        tokens_key=spec.key, shard=shard, files=(file,), videos=videos, totals=totals
    )
    return commit.to_bytes()


def _uri(index: int) -> str:
    return f"{index // 1000:07d}/clip-{index:09d}.mp4"


def _size(index: int) -> int:
    return 1_000_000 + index % 500_000


def _etag(index: int) -> str:
    return hashlib.md5(index.to_bytes(8, "big"), usedforsecurity=False).hexdigest()


def _uris(indices: NDArray[np.int64]) -> Any:  # noqa: ANN401  an Arrow array
    parts = (indices // 1000, 7), (indices, 9)
    padded = [pc.utf8_lpad(pc.cast(pa.array(n), pa.string()), width, "0") for n, width in parts]
    return pc.binary_join_element_wise(padded[0], "/clip-", padded[1], ".mp4", "")


def _digests(seed: int, count: int) -> Any:  # noqa: ANN401  an Arrow array
    text = np.random.default_rng(seed).bytes(16 * count).hex().encode()
    offsets = np.arange(0, 32 * count + 1, 32, dtype=np.int32)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(text))


@functools.lru_cache(4)
def _unit_names(block: int, videos: int) -> list[str]:
    first = block * BLOCK_VIDEOS
    ids = [video_id(_uri(index)) for index in range(first, min(first + BLOCK_VIDEOS, videos))]
    return [f"{video}-u00000-0123456789ab.parquet" for video in sorted(ids)]
