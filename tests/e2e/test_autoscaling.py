"""A cluster at rest: a head without a CPU, and an autoscaler that would bring a node with one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from clusters import RAY, free_ports
from ray.autoscaler._private.fake_multi_node.node_provider import (
    FAKE_HEAD_NODE_ID,
    FakeMultiNodeProvider,
)
from ray.autoscaler._private.monitor import BASE_READONLY_CONFIG
from runs import PATIENCE_S, REPOSITORY, start

from benchmarks.processes import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow]

_HEAD = "ray.head.default"


@pytest.fixture(params=["none", "first", "second"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which of Ray's autoscalers."""
    return request.param


@pytest.fixture
def cluster(kind: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment in which `RAY_ADDRESS` is the cluster."""
    # Short: the paths of Ray's sockets may have 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="auto-", dir="/tmp"))
    token = folder / "token"
    token.write_text("ab" * 32)
    joining = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    port = free_ports(1)
    head = [RAY, "start", "--block", "--head", f"--port={port}", f"--temp-dir={folder}"]
    head += ["--num-cpus=0", "--disable-usage-stats", "--include-dashboard=false"]
    environment = joining
    if kind != "none":
        (folder / "autoscaler.json").write_text(json.dumps(_autoscaler(port, kind)))
        head.append(f"--autoscaling-config={folder / 'autoscaler.json'}")
        environment = {**joining, "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    if kind == "second":
        # As KubeRay and `ray up` set them.
        environment |= {"RAY_enable_autoscaler_v2": "1", "RAY_NODE_TYPE_NAME": _HEAD}
        environment |= {"RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID}
    with start(head, tmp_path / "head.log", environment) as session:
        wait_until(lambda: "--address=" in session.output.read_text(), timeout_s=PATIENCE_S)
        address = session.output.read_text().split("--address='")[1].split("'")[0]
        yield {**joining, "RAY_ADDRESS": address}
    shutil.rmtree(folder, ignore_errors=True)


def _autoscaler(port: int, kind: str) -> dict[str, Any]:
    """Of Ray's own tests: nodes are processes of this machine."""
    worker = {"CPU": 1, "object_store_memory": 200_000_000}
    return {
        **BASE_READONLY_CONFIG,
        "max_workers": 1,
        "provider": {
            # By its module: the wheel lacks the defaults that go with its name.
            "type": "external",
            "module": f"{FakeMultiNodeProvider.__module__}.{FakeMultiNodeProvider.__name__}",
            "gcs_address": f"{ray.util.get_node_ip_address()}:{port}",
            "head_node_id": FAKE_HEAD_NODE_ID,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "launch_multiple": kind == "second",
        },
        "head_node_type": _HEAD,
        "available_node_types": {
            _HEAD: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "cpus": {"resources": worker, "node_config": {}, "max_workers": 1},
        },
    }


def test_doctor_knows_a_cluster_at_rest_from_one_that_lacks_something(
    kind: str, cluster: dict[str, str], checkpoint: Path
) -> None:
    command = [sys.executable, "-m", "jobs", "doctor", "--checkpoint", str(checkpoint), "--json"]
    command += ["--set", "space.size=32", "--set", "window.frames=9"]
    verdict = "FAIL" if kind == "none" else "look"

    def found() -> str:
        done = subprocess.run(
            command, cwd=REPOSITORY, env={**os.environ, **cluster}, stdout=subprocess.PIPE,
            timeout=PATIENCE_S, text=True, check=False,
        )  # fmt: skip
        (finding,) = [item for item in json.loads(done.stdout) if item["name"] == "cluster"]
        assert finding["what"].startswith("nodes: 1, CPUs: 0, GPUs: 0")
        assert done.returncode == (finding["verdict"] == "FAIL")
        return finding["verdict"]

    # The first autoscaler tells of itself a moment after the head is up.
    wait_until(lambda: found() == verdict, timeout_s=60)
