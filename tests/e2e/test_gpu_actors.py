"""Pass one on actors that hold shares of GPUs: how Ray places them, without a GPU to hold.

Ray counts GPUs that it is told of. The tokenizer here computes nothing, on the CPU; the real one is
tested on a real GPU by `infotok_core/test_fast.py` and `pipelines/test_analyser_gpu.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray

_RUN = """
import json, sys
from pathlib import Path
import ray
from pipeline import copies_of, pass_one
from pipelines.config import RunConfig

ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, logging_level="ERROR")
for number, runtime in enumerate(json.loads(sys.argv[3])):
    config = RunConfig.model_validate({"space": {"size": 64}, "runtime": runtime})
    folder = Path(sys.argv[2], str(number))
    plan, config, work = copies_of(Path(sys.argv[1]), 1, folder, config)
    progress, run = pass_one(plan, config, work, device="cuda")
    run()
    print(json.dumps([progress.done, progress.counts["windows"]]))
"""


def test_every_video_passes_actors_that_share_a_gpu(repository: Path, tmp_path: Path):
    clips = repository / "examples" / "clips"
    runtimes = [{}, {"actors_per_gpu": 3, "units_per_call": 2}]
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(clips), str(tmp_path), json.dumps(runtimes)],
        cwd=repository, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{repository}:{repository / 'benchmarks'}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(found) == 2
    assert found[0] == found[1]
    videos, windows = found[0]
    assert windows >= videos == len(list(clips.iterdir()))
