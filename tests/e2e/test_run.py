"""A finished corpus: what holds of it, and that a second run leaves it alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs import Finished, finish, run_command, start, stored

pytestmark = pytest.mark.ray


def test_a_run_accounts_for_every_video_and_window(undisturbed: Finished) -> None:
    summary = undisturbed.summary
    assert summary["videos_listed"] == 11
    assert summary["videos_committed"] == 10
    assert sum(summary["quarantine_reasons"].values()) == 1
    assert summary["windows"] > 100
    assert summary["rate_realised"] == pytest.approx(0.5, abs=0.01)
    assert {name.split("/")[0] for name in undisturbed.digests} == {"data", "wds", "meta"}


def test_a_finished_run_leaves_no_starts_and_no_temporary_files(undisturbed: Finished) -> None:
    assert stored(undisturbed.output, "attempts") == []
    left = [
        p.name for p in undisturbed.output.rglob("*") if p.name.startswith((".tmp-", "_probe-"))
    ]
    assert left == []


def test_a_second_run_does_nothing_and_says_the_same(
    undisturbed: Finished, source: Path, checkpoint: Path, tmp_path: Path
) -> None:
    before = _files(undisturbed.output)
    command = run_command(source, undisturbed.output, checkpoint)
    with start(command, tmp_path / "again.log") as session:
        again = finish(session, undisturbed.output)
    assert again.summary == undisturbed.summary
    assert _files(undisturbed.output) == before


def _files(output: Path) -> dict[str, tuple[int, int, int]]:
    # The inode, too: a file that was written again with the same bytes is another one.
    paths = [path for name in ("data", "wds", "_work") for path in (output / name).rglob("*")]
    return {
        str(path): (path.stat().st_ino, path.stat().st_mtime_ns, path.stat().st_size)
        for path in paths
        if path.is_file() and ".nv-meta" not in path.parts
    }
