"""Writes docs/originals.md: what one run makes of every file of ../shared/data/originals.

    python benchmarks/originals.py [--size 256] [--corpus DIR] [--output docs/originals.md]

Runs `infotok run ORIGINALS DIR --rate 0.5 --format both` with the default tokenizer, validates the
corpus, compares its Parquet rows with its WebDataset samples as plain pyarrow and plain webdataset
read them, decodes one video from its tokens beside the source, and writes one row per file. Prints
a JSON summary, progress goes to stderr. The full size takes a minute on two GPUs and hours on
a CPU; with --corpus the same command goes on where it was killed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import torch
import webdataset
from meters import CpuMeter

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("INFOTOK_SHARED", ROOT.parent / "shared"))
ORIGINALS = SHARED / "data" / "originals"
SHOWN = "val/interactive-examples__flower_bd9105.mp4"
RATE = 0.5
HEAD = """# Every original, one run

Made by `python benchmarks/originals.py{options}`; do not edit.
"""


def main() -> None:
    """Run, check, write the page, print the summary."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=256, help="short side of the crops, pixels")
    parser.add_argument("--corpus", type=Path, help="where the corpus goes, or already is")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "originals.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        corpus = arguments.corpus or Path(scratch, "corpus")
        summary = run_and_check(corpus, arguments.size)
        options = "" if arguments.size == 256 else f" --size {arguments.size}"
        text = document(summary, file_rows(corpus), HEAD.format(options=options))
    arguments.output.write_text(text)
    print(json.dumps(summary, indent=1))


def run_and_check(corpus: Path, size: int) -> dict[str, Any]:
    """Everything the page and the test say of a corpus, beside its files."""
    is_new = not (corpus / "_work").exists()
    meter, began = CpuMeter(), time.monotonic()
    command = ["run", str(ORIGINALS), str(corpus), "--rate", str(RATE), "--format", "both"]
    with meter.watching():
        status, printed = infotok(*command, "--set", f"space.size={size}")
    wall_s, cpu_s = time.monotonic() - began, meter.totals().total()
    if status:
        sys.exit(status)
    valid, _ = infotok("validate", str(corpus))
    shown = ["reconstruct", str(corpus), "--against", "--video", SHOWN, "--json", "-"]
    decoded, report = infotok(*shown)
    return {
        "run": json.loads(printed),
        "exit_codes": {"run": status, "validate": valid, "reconstruct": decoded},
        "rows": compared_rows(corpus),
        "reconstructed": json.loads(report)["mean"] if decoded == 0 else None,
        # Of a run that went on, the last start alone would mean nothing.
        "time": f"{wall_s:,.0f} s, {cpu_s:,.0f} CPU-seconds" if is_new else None,
    }


def infotok(*arguments: str) -> tuple[int, str]:
    """Exit status and stdout of a command."""
    done = subprocess.run(
        [sys.executable, "-m", "jobs", *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def compared_rows(corpus: Path) -> dict[str, int]:
    """Rows of the Parquet files, samples of the tars, and how many of both are the same."""
    rows = {row["clip_id"]: row for row in pq.read_table(corpus / "data").to_pylist()}
    tars = sorted(str(path) for path in (corpus / "wds").glob("*.tar"))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode())
    same = sum(
        (row := rows[sample["__key__"]])["tokens"] == sample["tokens.npy"].tolist()
        and row["mask"] == sample["mask.npy"].tobytes()
        and row["source"] == sample["json"]["source"]
        for sample in samples
    )
    return {"parquet": len(rows), "webdataset": len(samples), "same": same}


def file_rows(corpus: Path) -> list[str]:
    """Markdown, one row a file in the order of names: what became of it."""
    columns = ["source", "num_tokens", "grid_t", "grid_h", "grid_w"]
    kept: Counter[str] = Counter()
    cells: Counter[str] = Counter()
    windows: Counter[str] = Counter()
    for row in pq.read_table(corpus / "data", columns=columns).to_pylist():
        windows[row["source"]] += 1
        kept[row["source"]] += row["num_tokens"]
        cells[row["source"]] += row["grid_t"] * row["grid_h"] * row["grid_w"]
    found = {
        uri: f"committed | {windows[uri]} | {kept[uri]:,} | {kept[uri] / cells[uri]:.3f} |"
        for uri in windows
    }
    for row in pq.read_table(corpus / "quarantine" / "quarantine.parquet").to_pylist():
        detail = row["detail"][:90].replace("|", "\\|")
        found[row["uri"]] = f"{row['reason']} | 0 | | {detail} |"
    return [f"| {uri} | {text}" for uri, text in sorted(found.items())]


def machine() -> str:
    """Cores and GPUs of this one."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    cores = f"{psutil.cpu_count()}-core {platform.machine()}"
    return f"{cores}, {len(gpus)} x {gpus[0]}" if gpus else cores


def document(summary: dict[str, Any], rows: list[str], head: str) -> str:
    """The page."""
    run, shown, both = summary["run"], summary["reconstructed"], summary["rows"]
    reasons = ", ".join(f"{name} {n}" for name, n in sorted(run["quarantine_reasons"].items()))
    facts = [
        ("machine, date", f"{machine()}, {time.strftime('%F')}"),
        ("videos", f"{run['videos_listed']} listed, {run['videos_committed']} committed"),
        ("set aside", f"{run['videos_quarantined']}: {reasons}"),
        ("windows, tokens kept", f"{run['windows']:,}, {run['tokens']:,}"),
        ("rate asked, realised", f"{run['rate_asked']}, {run['rate_realised']:.6f}"),
        ("rows of Parquet, samples of WebDataset, the same", ", ".join(map(str, both.values()))),
        ("exit codes", ", ".join(f"`{k}` {v}" for k, v in summary["exit_codes"].items())),
        (f"`{SHOWN}` decoded again", f"{shown['psnr_db']:.2f} dB, SSIM {shown['ssim']:.3f}"),
    ]
    if summary["time"]:
        facts.append(("time of the run, all processes", summary["time"]))
    table = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts)]
    files = [
        "| file | outcome | windows | tokens | rate, or the decoder's words |",
        "|---" * 5 + "|",
    ]
    return "\n".join([head, *table, "", *files, *rows, ""])


if __name__ == "__main__":
    main()
