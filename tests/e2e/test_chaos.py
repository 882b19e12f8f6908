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

from benchmarks.processes import Session
from pipelines.errors import ConflictError
from pipelines.storage import Store

pytestmark = pytest.mark.ray


def test_kills_of_an_actor_a_decoder_and_the_driver_change_no_byte(
    undisturbed: Finished, source: Path, checkpoint: Path, tmp_path: Path
) -> None:
    output = tmp_path / "corpus"
    first = run_command(source, output, checkpoint, runtime__actors=2, runtime__decoders=1)
    second = run_command(
        source,
        output,
        checkpoint,
        runtime__actors=1,
        runtime__decoders=2,
        runtime__units_per_call=4,
        runtime__wave_videos=4,
        tokenizer__batch_size=3,
    )
    with start(first, tmp_path / "1.log") as killed:
        _kill_one(killed, "actor", output, num_units=1)
        _kill_one(killed, "decoder", output, num_units=2)
        until(killed, lambda: len(stored(output, "videos")) >= 3)
        killed.kill()
        assert len(stored(output, "videos")) < 11, "too late: the corpus was nearly done"
        # At once, while workers of the dead run may still be writing.
        with start(second, tmp_path / "2.log") as resumed:
            found = finish(resumed, output)
        killed.wait_leftovers(60)
    assert found.digests == undisturbed.digests
    assert found.summary == undisturbed.summary


def test_a_stuck_run_says_where_it_stands_and_a_stopped_one_can_be_resumed(
    undisturbed: Finished, source: Path, checkpoint: Path, tmp_path: Path
) -> None:
    output = tmp_path / "corpus"
    # No actor is ready so soon.
    watched = run_command(source, output, checkpoint, runtime__watchdog_s=1)
    with start(watched, tmp_path / "stuck.log") as session:
        assert session.wait(PATIENCE_S) == 5
        session.wait_leftovers(20)
        said = session.log.read_text()
    assert "no progress for" in said
    assert "last stand: analyse 0/11 videos" in said

    command = run_command(source, output, checkpoint)
    with start(command, tmp_path / "stopped.log") as session:
        until(session, lambda: stored(output, "videos"))
        session.send(signal.SIGTERM)
        assert session.wait(20) == 143
        session.wait_leftovers(20)
        assert "the same command goes on" in session.log.read_text()
    done = len(stored(output, "videos"))
    assert 0 < done < 11

    with start(command, tmp_path / "resumed.log") as session:
        found = finish(session, output)
    assert found.digests == undisturbed.digests


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
    with start(command, tmp_path / "again.log") as session:
        assert finish(session, output).digests == undisturbed.digests


@pytest.mark.parametrize("folder", ["data", "wds", "_work/units", "_work/videos", "_work/commits"])
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
    assert summary["leftovers_s"] < 30


def _kill_one(session: Session, kind: str, output: Path, *, num_units: int) -> None:
    until(session, lambda: len(stored(output, "units")) >= num_units)

    def killed() -> bool:
        return any(session.kill_member(pid) for pid in session.members(kind)[:1])

    until(session, killed)
