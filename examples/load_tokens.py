"""Read a token corpus with nothing but pyarrow, or nothing but webdataset: no code of this project.

    python examples/load_tokens.py CORPUS

Copy the function that fits your trainer. Both give the same clips.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import webdataset as wds

Clip = tuple[np.ndarray, np.ndarray, dict[str, Any]]
"""Kept ids, int64 [num_tokens]; where they belong, bool [grid_t, grid_h, grid_w]; the other
columns."""


def unpack(packed: np.ndarray, row: dict[str, Any]) -> np.ndarray:
    """The mask from its bits; the last byte is filled up with zeros."""
    grid = row["grid_t"], row["grid_h"], row["grid_w"]
    return np.unpackbits(packed, count=np.prod(grid)).astype(bool).reshape(grid)


def data_files(corpus: Path, kind: str) -> list[str]:
    """Trust the manifest alone: a file it does not list is not part of the corpus."""
    files = pq.read_table(corpus / "meta" / "manifest.parquet").to_pylist()
    return [str(corpus / file["path"]) for file in files if file["format"] == kind]


def parquet_clips(corpus: Path) -> Iterator[Clip]:
    """Every clip, a row group at a time."""
    for path in data_files(corpus, "parquet"):
        for batch in pq.ParquetFile(path).iter_batches(batch_size=256):
            for row in batch.to_pylist():
                # uint16 on disk: torch cannot index an embedding with that.
                tokens = np.array(row.pop("tokens"), np.int64)
                yield tokens, unpack(np.frombuffer(row.pop("mask"), np.uint8), row), row


def webdataset_clips(corpus: Path) -> Iterator[Clip]:
    """Every clip, streamed; the urls may be ``pipe:aws s3 cp …`` just as well."""
    tars = data_files(corpus, "webdataset")
    if tars:
        for sample in wds.WebDataset(tars, shardshuffle=False).decode():
            row = sample["json"]
            yield sample["tokens.npy"].astype(np.int64), unpack(sample["mask.npy"], row), row


def dense(tokens: np.ndarray, mask: np.ndarray, *, dropped: int = 64000) -> np.ndarray:
    """The ids on their grid, a special id (64000 is free) where none was kept."""
    grid = np.full(mask.shape, dropped, np.int64)
    grid[mask] = tokens
    return grid


def main() -> None:
    """Print the clips of a corpus, from each format it has."""
    corpus = Path(sys.argv[1])
    for name, clips in (
        ("parquet", parquet_clips(corpus)),
        ("webdataset", webdataset_clips(corpus)),
    ):
        for tokens, mask, row in clips:
            kept = (dense(tokens, mask) != 64000).sum()
            where = f"{row['start_time_s']:.2f}-{row['end_time_s']:.2f} s"
            print(f"{name:10} {row['clip_id']} {mask.shape} {kept} tokens  {row['source']} {where}")


if __name__ == "__main__":
    main()
