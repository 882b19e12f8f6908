"""`benchmarks/pipeline_gpu.py`, whole, on a CPU: what it counts adds up, and repeats compare."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Two clusters and two tokenizers of its own, for a script that no run needs.
pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_two_runs_are_measured_and_compared(
    repository: Path, source: Path, checkpoint: Path, tmp_path: Path
):
    result = tmp_path / "rows.json"
    command = [sys.executable, "benchmarks/pipeline_gpu.py", "--device", "cpu", "--gpus", "1", "2"]
    command += ["--input", f"small={source}", "--copies", "3", "--checkpoint", str(checkpoint)]
    for setting in ("space.size=32", "window.frames=9", "runtime.actors=1"):
        command += ["--set", setting]
    done = subprocess.run(
        [*command, "--json", str(result)], cwd=repository, capture_output=True, text=True,
        check=False, env={**os.environ, "PYTHONPATH": str(repository)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = json.loads(result.read_text())
    assert second["units_equal_to_first"] == second["units"] > 0
    for row in (first, second):
        # Two of the eleven files are too short or broken.
        assert (row["videos"], row["set_aside"]) == (33, 3)
        assert row["clips_per_s"] > 0
        assert sum(row["cpu_ms_by_kind"].values()) == pytest.approx(row["cpu_ms_per_window"], 0.1)
        assert row["batches_filled"] == 1.0
        assert row["bottleneck"]
