"""Kills anywhere, and the same bytes in the end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from runs import PATIENCE_S, Finished, finish, run_command, start, stored, until
from shared import requires_shared

from benchmarks.processes import Session, data_digests
from pipelines.errors import ConflictError
from pipelines.storage import Store

pytestmark = pytest.mark.ray


def test_kills_and_a_stop_change_no_byte(
    undisturbed: Finished, source: Path, checkpoint: Path, tmp_path: Path
) -> None:
    output = tmp_path / "corpus"
    first = run_command(source, output, checkpoint, runtime__actors=2, runtime__decoders=1)
    others = run_command(
        source,
        output,
        checkpoint,
        runtime__decoders=2,
        runtime__units_per_call=4,
        runtime__wave_videos=4,
        tokenizer__batch_size=3,
    )
    with start(first, tmp_path / "killed.log") as killed:
        _kill_one(killed, "actor", output, num_units=1)
        _kill_one(killed, "decoder", output, num_units=2)
        until(killed, lambda: len(stored(output, "videos")) >= 3)
        killed.kill()
        done = len(stored(output, "videos"))
        # At once, while workers of the dead run may still be writing.
        with start(others, tmp_path / "stopped.log") as stopped:
            until(stopped, lambda: len(stored(output, "videos")) > done)
            stopped.send(signal.SIGTERM)
            assert stopped.wait(30) == 143
            stopped.wait_leftovers(20)
            assert "the same command goes on from here" in stopped.log.read_text()
        assert len(stored(output, "videos")) < 11, "too late: the corpus was nearly done"
        killed.wait_leftovers(60)
    with start(others, tmp_path / "resumed.log") as resumed:
        found = finish(resumed, output)
    assert found.digests == undisturbed.digests
    assert found.summary == undisturbed.summary


def test_a_run_that_wakes_up_after_another_has_finished_spoils_nothing(
    undisturbed: Finished, source: Path, checkpoint: Path, tmp_path: Path
) -> None:
    output = tmp_path / "corpus"
    command = run_command(source, output, checkpoint)
    with start(command, tmp_path / "sleeper.log") as sleeper:
        until(sleeper, lambda: stored(output, "units"))
        frozen = sleeper.members()
        for pid in frozen:
            sleeper.kill_member(pid, signal.SIGSTOP)
        assert len(stored(output, "videos")) < 11
        with start(command, tmp_path / "other.log") as other:
            found = finish(other, output)
        assert found.digests == undisturbed.digests
        for pid in frozen:
            sleeper.kill_member(pid, signal.SIGCONT)
        status = sleeper.wait(PATIENCE_S)
        said = sleeper.log.read_text()[-3000:]
    # It may find that all is done, or find out that its own Ray gave it up meanwhile.
    assert status in (0, 1), said
    assert data_digests(output) == undisturbed.digests


@pytest.mark.parametrize(
    "folder", ["data", "wds", "_work/units", "_work/receipts", "_work/commits"]
)
def test_a_late_writer_with_other_bytes_is_refused(undisturbed: Finished, folder: str) -> None:
    store = Store(str(undisturbed.output))
    path, _ = next(store.list(folder))
    before = store.read(path)
    assert not store.create(path, b"other bytes")
    with pytest.raises(ConflictError, match="other bytes"):
        store.publish(path, b"other bytes")
    store.publish(path, before)
    assert store.read(path) == before


@pytest.mark.slow
@requires_shared
@pytest.mark.timeout(3600)
def test_twenty_random_kills_change_no_byte(repository: Path) -> None:
    command = [sys.executable, "benchmarks/chaos.py", "--seed", "7", "--kills", "20"]
    done = subprocess.run(command, cwd=repository, stdout=subprocess.PIPE, check=False)
    summary = json.loads(done.stdout)
    assert summary["identical"], summary["different"]
    assert sum(summary["kills"].values()) == 20
    assert summary["leftovers_s"] < 60


def _kill_one(session: Session, kind: str, output: Path, *, num_units: int) -> None:
    until(session, lambda: len(stored(output, "units")) >= num_units)

    def killed() -> bool:
        return any(session.kill_member(pid) for pid in session.members(kind)[:1])

    until(session, killed)
