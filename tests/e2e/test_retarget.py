"""Another rate from the stored analyses: by the command line, without a video."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from runs import PATIENCE_S, SETTINGS, Finished, start

from benchmarks.processes import data_digests
from pipelines.storage import Store
from pipelines.validate import validate

pytestmark = pytest.mark.ray


@dataclass(frozen=True, kw_only=True)
class Retargeted:
    """The second corpus, and how the command ended."""

    output: Path
    status: int
    summary: dict[str, Any]
    said: str


@pytest.fixture(scope="module")
def retargeted(
    undisturbed: Finished, source: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Retargeted:
    folder = tmp_path_factory.mktemp("retarget")
    output = folder / "corpus"
    command = [sys.executable, "-m", "jobs", "tokenise", str(output), "--rate", "0.25"]
    command += ["--work", str(undisturbed.output / "_work"), "--checkpoint", str(checkpoint)]
    # One of the eleven videos is broken: that is more than this run is to stand.
    for name, value in {**SETTINGS, "runtime.max_failure_rate": 0.05}.items():
        command += ["--set", f"{name}={value}"]
    hidden = source.rename(source.with_name("videos that are gone"))
    try:
        with start(command, folder / "run.log") as session:
            status = session.wait(PATIENCE_S)
            said = session.log.read_text(errors="replace")
            printed = session.output.read_text()
    finally:
        hidden.rename(source)
    assert printed, said[-3000:]
    return Retargeted(output=output, status=status, summary=json.loads(printed), said=said)


def test_the_asked_rate_is_met(retargeted: Retargeted) -> None:
    summary = retargeted.summary
    assert summary["rate_asked"] == 0.25
    assert summary["rate_realised"] == pytest.approx(0.25, rel=2e-3)
    rows = [
        row
        for path in (retargeted.output / "data").glob("*.parquet")
        for row in pq.read_table(
            path, columns=["num_tokens", "grid_t", "grid_h", "grid_w"]
        ).to_pylist()
    ]
    cells = sum(row["grid_t"] * row["grid_h"] * row["grid_w"] for row in rows)
    assert sum(row["num_tokens"] for row in rows) == pytest.approx(0.25 * cells, rel=2e-3)


def test_nothing_is_decoded(retargeted: Retargeted) -> None:
    # The videos were not there; no line tells of a pass over them.
    assert "analyse" not in retargeted.said
    assert re.search(r"tokenise (\d+)/\1 shards", retargeted.said)


def test_both_corpora_hold_the_same_windows_and_are_sound(
    undisturbed: Finished, retargeted: Retargeted
) -> None:
    assert retargeted.summary["windows"] == undisturbed.summary["windows"]
    for output in (undisturbed.output, retargeted.output):
        assert validate(Store(str(output))).faults == ()


def test_the_first_corpus_is_left_as_it_was(undisturbed: Finished, retargeted: Retargeted) -> None:
    assert retargeted.output.exists()
    assert data_digests(undisturbed.output) == undisturbed.digests


def test_too_many_quarantined_videos_fail_the_run_after_everything_is_written(
    retargeted: Retargeted,
) -> None:
    assert retargeted.status == 1
    assert "error: 1 of 11 videos are quarantined, more than" in retargeted.said
    assert (retargeted.output / "meta" / "manifest.parquet").exists()
