"""Tokens per second and core of the loader, next to plain webdataset and HF datasets.

    python benchmarks/loader.py [CORPUS] [--rows 2048] [--repeat 3] [--json FILE]

All readers give the same: every window's ids as an int64 tensor, with the place of each (int32
[N, 3]) where the line says so. One process, one thread, files on the local disk and in the page
cache; CPU time (user + system), because wall time says little on a shared machine. The best of
``--repeat`` rounds counts for each, the rounds interleaved; the ratios to plain webdataset are the
result. Without CORPUS one of synthetic ids is written (33 x 256 x 256 windows, half of 9 x 32 x 32
tokens kept): reading does not depend on what the ids are.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Before anything counts the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import webdataset as wds

from pipelines.corpus_reader import read_manifest
from pipelines.dataset import Buckets, Packing, Specials, TokenDataset
from pipelines.sinks.parquet import parquet_bytes
from pipelines.sinks.webdataset import tar_bytes
from pipelines.storage import Store
from schemas.ids import clip_id, video_id
from schemas.info import CorpusInfo, TokenizerInfo, VideoCounts
from schemas.layout import INFO_PATH, MANIFEST_PATH
from schemas.manifest import DataFile, Totals, encode_manifest
from schemas.rates import RateRule
from schemas.tokens import pack_mask, rows_to_table

GRID = (9, 32, 32)
WINDOWS_PER_VIDEO = 16
FINGERPRINT = "b" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One reader."""

    name: str
    tokens: int
    cpu_s: float
    tokens_per_cpu_s: float
    ratio: float
    """Of tokens per CPU-second to plain webdataset with places."""


def synthetic_rows(count: int) -> list[dict[str, Any]]:
    """Rows of windows with half of their tokens."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        video, window = divmod(number, WINDOWS_PER_VIDEO)
        source = f"videos/{video:05d}.mp4"
        mask = rng.random(GRID) < 0.5
        tokens = rng.integers(0, 64000, int(mask.sum())).astype(np.uint16)
        rows.append(
            {
                "clip_id": clip_id(video_id(source), window), "tokens": tokens,
                "mask": pack_mask(mask), "num_tokens": len(tokens),
                "frame_token_counts": mask.reshape(9, -1).sum(1).astype(np.uint16),
                "grid_t": 9, "grid_h": 32, "grid_w": 32, "rate_target": 0.5,
                "rate": float(np.float32(len(tokens) / mask.size)), "elbo": 0.125,
                "frame_elbo": np.full(9, 0.125, np.float32), "source": source,
                "video_id": video_id(source), "window_index": window,
                "start_time_s": window * 1.375, "end_time_s": (window + 1) * 1.375,
                "start_frame": window * 33, "num_frames": 33, "fps": 24.0, "source_fps": 24.0,
                "width": 256, "height": 256, "source_width": 1920, "source_height": 1080,
                "tokenizer": FINGERPRINT,
            }
        )  # fmt: skip
    return rows


def write_corpus(root: Path, count: int) -> None:
    """A corpus of four shards in both formats."""
    store = Store(str(root))
    rows = synthetic_rows(count)
    files: list[DataFile] = []
    for shard in range(4):
        # Whole videos, as a plan deals them.
        part = sorted(
            (row for row in rows if int(row["source"][7:12]) % 4 == shard),
            key=lambda row: row["clip_id"],
        )
        parquet = parquet_bytes(
            rows_to_table(part),
            encoding="byte_stream_split",
            row_group_rows=256,
            tokenizer=FINGERPRINT,
        )
        for path, data, kind in (
            (f"data/train-{shard:06d}-00.parquet", parquet, "parquet"),
            (f"wds/train-{shard:06d}-00.tar", tar_bytes(part), "webdataset"),
        ):
            store.publish(path, data)
            files.append(DataFile.of(path, data, rows=part, shard=shard, format=kind))
    info = CorpusInfo(
        source_root="synthetic", plan_id="p", tokens_key="k",
        tokenizer=TokenizerInfo(
            fingerprint=FINGERPRINT, name="none", spatial_compression=8, temporal_compression=4
        ),
        window={}, space={}, routing=RateRule.static(0.5),
        statistics_digest=None, split="train", formats=("parquet", "webdataset"),
        licence="none", videos=VideoCounts(listed=0, committed=0, quarantined=0),
        totals=Totals(), files=len(files), num_bytes=sum(file.bytes for file in files), reasons={},
    )  # fmt: skip
    store.publish(INFO_PATH, info.to_bytes())
    store.publish(MANIFEST_PATH, encode_manifest(files))


def paths(corpus: str, kind: str) -> list[str]:
    """Data files of a format."""
    store = Store(corpus)
    return [store.full(file.path) for file in read_manifest(store) if file.format == kind]


def places(mask: bytes, grid: tuple[int, int, int]) -> torch.Tensor:
    """What every reader with places has to do."""
    bits = np.unpackbits(np.frombuffer(mask, np.uint8), count=np.prod(grid))
    return torch.from_numpy(np.argwhere(bits.reshape(grid)).astype(np.int32))


def plain_webdataset(corpus: str, *, with_places: bool) -> Iterator[int]:
    """As the README of webdataset does it."""
    tars = paths(corpus, "webdataset")
    for sample in wds.WebDataset(tars, shardshuffle=False).shuffle(256).decode():
        tokens = torch.from_numpy(sample["tokens.npy"].astype(np.int64))
        if with_places:
            row = sample["json"]
            grid = row["grid_t"], row["grid_h"], row["grid_w"]
            places(sample["mask.npy"].tobytes(), grid)
        yield len(tokens)


def hf_datasets(corpus: str, *, with_places: bool) -> Iterator[int]:
    """Streaming, columns chosen, a buffer of the same size."""
    columns = ["tokens", "clip_id", "start_time_s", "end_time_s"]
    columns += ["mask", "grid_t", "grid_h", "grid_w"] if with_places else []
    files = paths(corpus, "parquet")
    rows = datasets.load_dataset(
        "parquet", data_files=files, split="train", streaming=True, columns=columns
    )
    for row in rows.shuffle(seed=0, buffer_size=256).with_format("numpy"):
        tokens = torch.from_numpy(row["tokens"].astype(np.int64))
        if with_places:
            grid = int(row["grid_t"]), int(row["grid_h"]), int(row["grid_w"])
            places(row["mask"], grid)
        yield len(tokens)


def plain_pyarrow(corpus: str) -> Iterator[int]:
    """The least that Parquet costs: ids alone, in order."""
    for path in paths(corpus, "parquet"):
        for batch in pq.ParquetFile(path).iter_batches(256, columns=["tokens"], use_threads=False):
            column: pa.ListArray = batch.column(0)
            for scalar in column:
                yield len(torch.from_numpy(scalar.values.to_numpy().astype(np.int64)))


def ours(corpus: str, mode: Packing | Buckets | None = None, **options: Any) -> Iterator[int]:  # noqa: ANN401
    """The loader; packed contexts count what is no padding."""
    for item in TokenDataset(corpus, mode, lanes=1, **options):
        if mode is None:
            yield len(item["tokens"])
        elif isinstance(mode, Packing):
            yield int(item["cu_seqlens"][-1])
        else:
            yield int(item["lengths"].sum())


def readers() -> dict[str, Callable[[str], Iterator[int]]]:
    """By name, the reference first."""
    frame = Specials(bos=64000, frame=64001)
    return {
        "webdataset, places": lambda corpus: plain_webdataset(corpus, with_places=True),
        "webdataset, ids alone": lambda corpus: plain_webdataset(corpus, with_places=False),
        "HF datasets, places": lambda corpus: hf_datasets(corpus, with_places=True),
        "HF datasets, ids alone": lambda corpus: hf_datasets(corpus, with_places=False),
        "pyarrow, ids alone, in order": plain_pyarrow,
        "TokenDataset, samples, places": ours,
        "TokenDataset from tars": lambda corpus: ours(corpus, format="webdataset"),
        "TokenDataset, sha256 first": lambda corpus: ours(corpus, verify="sha256"),
        "TokenDataset, packed to 32k": lambda corpus: ours(corpus, Packing(context=1 << 15)),
        "the same with frame ids": lambda corpus: ours(
            corpus, Packing(context=1 << 15, specials=frame)
        ),
        "TokenDataset, buckets": lambda corpus: ours(corpus, Buckets(batch_size=16)),
    }


def measure(corpus: str, repeat: int) -> list[Line]:
    """Every reader in turn, ``repeat`` times; the best round of each."""
    best: dict[str, tuple[float, int]] = {}
    for _ in range(repeat):
        for name, reader in readers().items():
            begun_s = time.process_time()
            tokens = sum(reader(corpus))
            spent_s = time.process_time() - begun_s
            if name not in best or spent_s < best[name][0]:
                best[name] = spent_s, tokens
    reference_s, reference = next(iter(best.values()))
    return [
        Line(
            name=name,
            tokens=tokens,
            cpu_s=spent_s,
            tokens_per_cpu_s=tokens / spent_s,
            ratio=(tokens / spent_s) / (reference / reference_s),
        )
        for name, (spent_s, tokens) in best.items()
    ]


def opening_us(corpus: str, repeat: int) -> float:
    """CPU-microseconds per row to open a corpus for packing, beyond opening it for samples."""
    spent_s = {mode: float("inf") for mode in (None, Packing(context=1 << 15))}
    for mode in list(spent_s) * repeat:
        begun_s = time.process_time()
        rows = sum(unit.count for unit in TokenDataset(corpus, mode).corpus.units)
        spent_s[mode] = min(spent_s[mode], time.process_time() - begun_s)
    plain_s, packing_s = spent_s.values()
    return (packing_s - plain_s) / rows * 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("corpus", nargs="?", help="with both formats")
    parser.add_argument("--rows", type=int, default=2048, help="of the synthetic corpus")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        corpus = options.corpus or folder
        if options.corpus is None:
            write_corpus(Path(folder), options.rows)
        lines = measure(corpus, options.repeat)
        index_us = opening_us(corpus, options.repeat)
    print(f"{platform.machine()}, {os.cpu_count()} cores, {datetime.date.today()}")  # noqa: DTZ011
    for line in lines:
        rate = line.tokens_per_cpu_s / 1e6
        print(f"{line.name:32} {rate:8.2f} M tokens/s/core {line.ratio:8.2f}")
    print(f"opening for packing: {index_us:.1f} CPU-microseconds per row")
    if options.json:
        options.json.write_text(json.dumps([asdict(line) for line in lines], indent=1))


if __name__ == "__main__":
    main()
