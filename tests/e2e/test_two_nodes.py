"""Two nodes on this machine, one of them lost in the middle of a run."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from clusters import RAY, call, free_ports
from runs import PATIENCE_S, Finished, finish, run_command, start, stored, until

from benchmarks.processes import Session, wait_until

pytestmark = pytest.mark.ray

_PORTS_PER_NODE = 5


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """A head and a second node, each a session of its own."""

    address: str
    environment: dict[str, str]
    head: Session
    second: Session


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    # Short: the paths of Ray's sockets may have 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="two-", dir="/tmp"))
    token = folder / "token"
    token.write_text("ab" * 32)
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    first = free_ports(1 + 2 * _PORTS_PER_NODE)
    common = [RAY, "start", "--block", "--num-cpus=1", "--disable-usage-stats"]
    common += ["--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=200000000"]
    head = [*common, "--head", f"--port={first}", "--include-dashboard=false"]
    head += [f"--temp-dir={folder}", *_ports(first + 1)]
    with ExitStack() as stack:
        session = stack.enter_context(start(head, tmp_path / "head.log", environment))
        wait_until(lambda: "--address=" in session.output.read_text(), timeout_s=PATIENCE_S)
        # Ray gives the address of this machine, not of the loopback.
        address = session.output.read_text().split("--address='")[1].split("'")[0]
        other = [*common, f"--address={address}", *_ports(first + 1 + _PORTS_PER_NODE)]
        second = stack.enter_context(start(other, tmp_path / "second.log", environment))
        wait_until(lambda: "runtime started" in second.output.read_text(), timeout_s=PATIENCE_S)
        yield Nodes(address=address, environment=environment, head=session, second=second)
    shutil.rmtree(folder, ignore_errors=True)


def _ports(first: int) -> list[str]:
    names = [
        "node-manager-port",
        "object-manager-port",
        "dashboard-agent-listen-port",
        "dashboard-agent-grpc-port",
        "metrics-export-port",
    ]
    return [f"--{name}={first + index}" for index, name in enumerate(names)]


def test_a_run_survives_the_loss_of_a_node(
    nodes: Nodes, undisturbed: Finished, source: Path, checkpoint: Path, tmp_path: Path
) -> None:
    output = tmp_path / "corpus"
    command = run_command(source, output, checkpoint, runtime__actors=2)
    environment = {**nodes.environment, "RAY_ADDRESS": nodes.address}
    with start(command, tmp_path / "run.log", environment) as session:
        until(session, lambda: stored(output, "videos"))
        workers = {kind: nodes.second.members(kind) for kind in ("actor", "task", "decoder")}
        assert any(workers.values()), "the second node has no part in the run"
        nodes.second.end()
        assert len(stored(output, "videos")) < 11, "too late: the corpus was nearly done"
        found = finish(session, output)
    assert found.digests == undisturbed.digests
    assert found.summary == undisturbed.summary


@pytest.mark.slow
def test_doctor_counts_the_nodes_that_are_there(
    nodes: Nodes, checkpoint: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "jobs", "doctor", str(checkpoint), str(tmp_path / "out")]
    command += ["--checkpoint", str(checkpoint), "--json"]
    command += ["--set", "space.size=32", "--set", "window.frames=9"]
    environment = {**nodes.environment, "RAY_ADDRESS": nodes.address}

    def found() -> dict[str, str]:
        findings = json.loads(call(command, environment, errors=False))
        return {finding["name"]: finding["what"] for finding in findings}

    both = found()
    assert both["cluster"] == "nodes: 2, CPUs: 2, GPUs: 0"
    assert str(tmp_path / "out") in both["shared"]
    nodes.second.end()
    wait_until(lambda: found()["cluster"] == "nodes: 1, CPUs: 1, GPUs: 0", timeout_s=PATIENCE_S)
    assert "shared" not in found()
