"""The command line as a job of a cluster: submitted, stopped, submitted again."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from clusters import RAY, call, free_ports
from runs import PATIENCE_S, REPOSITORY, Finished, run_command, stored

from benchmarks.processes import data_digests, descendants, wait_until
from pipelines.stage_metrics import exported_names

pytestmark = pytest.mark.ray

SCRIPT = str(REPOSITORY / "examples" / "cluster.sh")


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What `examples/cluster.sh` started."""

    folder: Path
    head: int
    environment: dict[str, str]

    def ray(self, *arguments: str) -> str:
        return call([RAY, "job", *arguments], self.environment)

    def metrics(self, stage: str) -> dict[str, float]:
        """What Prometheus is told of a stage, where docs/recipes.md lets it look."""
        discovery = self.folder / "ray" / "prom_metrics_service_discovery.json"
        (found,) = json.loads(discovery.read_text())
        pages = [_page(f"http://{target}/metrics") for target in found["targets"]]
        line = re.compile(r'^(ray_infotok_\w+){.*stage="([^"]+)".*} (\S+)$', re.MULTILINE)
        lines = [found for page in pages for found in line.findall(page)]
        return {name: float(value) for name, of, value in lines if of == stage}

    def submit(self, name: str, command: list[str], *, wait: bool = True) -> str:
        options = ["--submission-id", name, "--working-dir", "."]
        return self.ray("submit", *options, *([] if wait else ["--no-wait"]), "--", *command)


def _page(url: str) -> str:
    """Nothing where nobody answers yet: Ray names its targets before they listen."""
    try:
        return urllib.request.urlopen(url, timeout=PATIENCE_S).read().decode()
    except urllib.error.URLError:
        return ""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # Short: the paths of Ray's sockets may have 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="head-", dir="/tmp"))
    environment = {
        "INFOTOK_CLUSTER": str(folder),
        "INFOTOK_PORTS": str(free_ports(6)),
        "VENV": sys.prefix,
        "RAY_metrics_report_interval_ms": "500",
    }
    try:
        printed = call([SCRIPT, "start", "--num-cpus=2"], environment)
        exports = [word for word in shlex.split(printed) if "=" in word]
        variables = dict(word.split("=", 1) for word in exports)
        variables["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        head = int((folder / "pid").read_text())
        yield Cluster(folder=folder, head=head, environment=variables)
    finally:
        call([SCRIPT, "stop"], environment)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_job_that_was_stopped_and_submitted_again_writes_the_same_corpus(
    cluster: Cluster, undisturbed: Finished, source: Path, checkpoint: Path, tmp_path: Path
) -> None:
    output = tmp_path / "corpus"
    # `python` is that of the cluster.
    command = ["python", *run_command(source, output, checkpoint)[1:]]
    cluster.submit("first", command, wait=False)
    wait_until(lambda: len(stored(output, "videos")) >= 2, timeout_s=PATIENCE_S)
    for pid in descendants(cluster.head, "actor"):
        # Else the rest could be done before `ray job stop` has started.
        os.kill(pid, signal.SIGSTOP)
    _check_metrics(cluster)
    begun = time.monotonic()
    assert "was stopped" in cluster.ray("stop", "first")
    assert "the same command goes on from here" in cluster.ray("logs", "first")
    assert time.monotonic() - begun < 30
    assert 2 <= len(stored(output, "videos")) < 11

    assert "succeeded" in cluster.submit("second", command)
    assert data_digests(output) == undisturbed.digests


def _check_metrics(cluster: Cluster) -> None:
    """The driver goes on saying how it stands."""
    expected = exported_names() - {"ray_infotok_shards_total", "ray_infotok_quarantined_total"}
    told: dict[str, float] = {}

    def is_told() -> bool:
        told.update(cluster.metrics("analyse"))
        return told.keys() >= expected and (
            2 <= told["ray_infotok_finished"] == told["ray_infotok_videos_total"]
        )

    wait_until(is_told, timeout_s=PATIENCE_S)
    assert told.keys() <= exported_names()
    assert told["ray_infotok_planned"] == 11
    assert told["ray_infotok_tokens_total"] > told["ray_infotok_windows_total"] > 0


def test_a_submitted_job_takes_neither_environment_nor_history_along(cluster: Cluster) -> None:
    # What the job itself sees: where Ray unpacks, and for how long, is its own affair.
    listing = (
        "import json, pathlib as p; here = p.Path();"
        "sizes = [f.stat().st_size for f in here.rglob('*') if f.is_file()];"
        "print('SEEN', json.dumps([[f.name for f in here.iterdir()], sum(sizes)]))"
    )
    printed = cluster.submit("listing", ["python", "-c", listing])
    (seen,) = re.findall(r"^SEEN (.*)$", printed, re.MULTILINE)
    names, size = json.loads(seen)
    assert {"jobs", "pipelines", "schemas", "infotok_core"} <= set(names)
    assert not set(names) & {".venv", ".git", "shared"}
    assert size < 60 << 20
