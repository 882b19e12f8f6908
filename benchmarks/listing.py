"""What a listing of a million objects costs: a plan made, stored and read back, no pixels.

    python benchmarks/listing.py [--objects 1000000]

Prints CPU-seconds of each step and the peak memory of the process so far.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.config import RunConfig
from pipelines.id_set import IdSet
from pipelines.plan import ensure_plan
from pipelines.plan_draft import draft_plan
from pipelines.sources import Source, SourceObject
from pipelines.storage import Store

_TOKENIZER = "0" * 64


def listing(count: int) -> Source:
    """Objects of a megabyte or so, in a thousand folders, in no order."""

    def objects() -> Iterator[SourceObject]:
        for index in range(count):
            digest = hashlib.md5(str(index).encode(), usedforsecurity=False).hexdigest()
            uri = f"part-{index % 997:04d}/{digest[:2]}/{digest}.mp4"
            yield SourceObject(uri=uri, size=1_000_000 + index % 500_000, version=digest)

    return Source(root="s3://bucket/videos", objects=objects())


@contextmanager
def measured(what: str) -> Generator[None]:
    """Print a row of the table."""
    began = time.process_time()
    yield
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"| {what} | {time.process_time() - began:.1f} | {peak_mib:.0f} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=1_000_000)
    count = parser.parse_args().objects
    config = RunConfig()
    print("| step | CPU-s | peak MiB |\n|---|---|---|")
    with measured("imports"):
        pass
    with (
        measured("draft_plan"),
        draft_plan(listing(count), config, tokenizer=_TOKENIZER) as draft,
    ):
        head = draft.head
    with tempfile.TemporaryDirectory() as folder:
        with measured("ensure_plan: the same, and stored"):
            store = Store(folder)
            plan = ensure_plan(listing(count), config, tokenizer=_TOKENIZER, work=store)
        with measured("all rows read back"):
            assert sum(1 for _ in plan.rows()) == count
        with measured("the videos of one shard"):
            plan.shard(head.shards // 2)
        with measured("a set of all ids"):
            ids = IdSet.of_columns(table["video_id"] for _, table in plan.columns("video_id"))
        with measured("each id looked up in it"):
            assert plan.among(ids).all()
        size_mib = Path(folder, "plan.parquet").stat().st_size / 2**20
    print(f"\n{count:,} objects, {head.shards} shards, plan.parquet {size_mib:.0f} MiB")


if __name__ == "__main__":
    main()
