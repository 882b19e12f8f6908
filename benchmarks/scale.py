"""What a corpus of millions of videos costs the driver and the store, without a single pixel.

    python benchmarks/scale.py [--videos 1000000] [--steps plan,resume] [--json FILE]

Every step is a process of its own that runs the pipeline's own code on an object store that counts
(`scale_store`): plan, packs, receipts, statistics, commits and manifest are real objects; the
source and the units of finished videos are names that can be listed. Prints, per step, seconds,
CPU-seconds, peak memory of the process and its requests by kind.

``page`` parses one page of a listing, as botocore would. The others build on one another: ``plan``;
``half`` makes the first half of the videos finished;
``resume`` and ``trust`` (``runtime.relist = false``) go to the first wave; ``block`` takes 4096
videos through starts, units, receipts and their pack; ``rest`` finishes the other half; then
``statistics``, ``shard`` (what one task of pass two reads first), ``commits`` and ``finalise``.
``half`` and ``rest`` are set-up: they write packs without writing a receipt for each video before.
``names`` stands for ``half`` where only a resume of millions is measured, ``quick`` for ``plan``
before ``trust`` (it makes the ids up, so that a listing does not fit it).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from scale_corpus import STEPS, Corpus

_GROUPS = {
    "LIST": ("list_objects_v2",),
    "GET": ("get_object",),
    "HEAD": ("head_object", "head_bucket"),
    "PUT": (
        "put_object", "create_multipart_upload", "upload_part", "complete_multipart_upload",
    ),
    "DELETE": ("delete_object", "delete_objects"),
}  # fmt: skip


def run_step(name: str, folder: Path, videos: int) -> dict[str, Any]:
    """One step, in this process."""
    corpus = Corpus(folder, videos)
    start_mib = _peak_mib()
    wall, cpu = time.perf_counter(), time.process_time()
    said = getattr(corpus, name)()
    row = {
        "step": name,
        "videos": videos,
        "wall_s": round(time.perf_counter() - wall, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
        "peak_mib": round(_peak_mib()),
        "before_mib": round(start_mib),
    }
    requests = corpus.bucket.requests
    for group, methods in _GROUPS.items():
        row[group] = sum(requests[method] for method in methods)
    row["read_mib"] = round(corpus.bucket.num_bytes["read"] / 2**20, 1)
    row["written_mib"] = round(corpus.bucket.num_bytes["written"] / 2**20, 1)
    return row | {"objects": len(corpus.bucket), **said}


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _table(rows: list[dict[str, Any]]) -> str:
    columns = ["step", "videos", "cpu_s", "wall_s", "peak_mib", *_GROUPS, "read_mib", "written_mib"]
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for row in rows:
        cells = (row[name] for name in columns)
        texts = (f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells)
        lines.append(f"| {' | '.join(texts)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=1_000_000)
    parser.add_argument("--steps", default=",".join(STEPS))
    parser.add_argument("--folder", type=Path, help="keep the store here, and go on from it")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run_step(options.steps, options.folder, options.videos)))
        return
    folder = options.folder or Path(tempfile.mkdtemp(prefix="infotok-scale-"))
    rows: list[dict[str, Any]] = []
    try:
        for step in options.steps.split(","):
            command = [sys.executable, __file__, "--one", "--steps", step, "--folder", str(folder)]
            command += ["--videos", str(options.videos)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]) | {"load": os.getloadavg()[0]})
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    finally:
        if not options.folder:
            shutil.rmtree(folder)
    print(_table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
