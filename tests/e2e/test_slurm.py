"""examples/deploy/slurm.sh as it stands; `srun` and `scontrol` are stand-ins, all else is real.

Both nodes are this machine: `srun` runs its command here.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from runs import PATIENCE_S, REPOSITORY, Finished, run_command, start, stored, until

from benchmarks.processes import Session, data_digests

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SRUN = """#!/usr/bin/env bash
echo "srun $*" >>"$SLURM_STAND_IN"
while [[ $1 == -* ]]; do shift; done
exec "$@"
"""
SCONTROL = """#!/usr/bin/env bash
echo "scontrol $*" >>"$SLURM_STAND_IN"
[[ $1 == show ]] && printf '%s\\n' node-a node-b
exit 0
"""


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """What a job finds around it.

    Attributes:
        calls: What was asked of Slurm, a line each.
    """

    calls: Path
    environment: dict[str, str]

    def sbatch(self, command: list[str], log: Path) -> Session:
        script = str(REPOSITORY / "examples" / "deploy" / "slurm.sh")
        return start([script, *command], log, self.environment)


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(text)
        program.chmod(0o755)
    job = str(os.getpid())
    path = [str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    options = "--num-cpus=1 --object-store-memory=200000000 --min-worker-port=0 --max-worker-port=0"
    yield Slurm(
        calls=tmp_path / "calls",
        environment={
            "PATH": ":".join(path),
            "SLURM_STAND_IN": str(tmp_path / "calls"),
            "SLURM_JOB_ID": job,
            "SLURM_JOB_NODELIST": "node-[a-b]",
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "RAY_START_OPTIONS": options,
        },
    )
    shutil.rmtree(f"/tmp/ray-{job}", ignore_errors=True)


def test_a_job_at_its_time_limit_is_queued_again_and_goes_on(
    slurm: Slurm, undisturbed: Finished, source: Path, checkpoint: Path, tmp_path: Path
) -> None:
    output = tmp_path / "corpus"
    command = run_command(source, output, checkpoint)[4:]
    with slurm.sbatch(command, tmp_path / "first.log") as job:
        until(job, lambda: len(stored(output, "videos")) >= 2)
        # As `--signal=B:TERM@120`.
        os.kill(job.pid, signal.SIGTERM)
        assert job.wait(PATIENCE_S) == 143, job.log.read_text(errors="replace")[-3000:]
    assert len(stored(output, "videos")) < 11
    calls = slurm.calls.read_text().splitlines()
    assert calls[-1] == f"scontrol requeue {slurm.environment['SLURM_JOB_ID']}"
    starts = [line for line in calls if " ray start " in line]
    assert ["--head" in line for line in starts] == [True, False]
    assert ["--nodelist=node-a" in line for line in starts] == [True, False]

    with slurm.sbatch(command, tmp_path / "second.log") as job:
        assert job.wait(PATIENCE_S) == 0, job.log.read_text(errors="replace")[-3000:]
    assert ": 2 of 2 nodes\n" in job.log.read_text(errors="replace")
    assert data_digests(output) == undisturbed.digests
    assert slurm.calls.read_text().count("requeue") == 1
    assert not list(tmp_path.glob(".ray-token*"))
