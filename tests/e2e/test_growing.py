"""A corpus that grows by the command line: new videos, and one that was repaired."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from runs import PATIENCE_S, finish, run_command, start
from videos import write_video

from benchmarks.processes import data_digests
from pipelines.storage import Store
from pipelines.validate import validate

# Four starts of Ray.
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]


def infotok(log: Path, *arguments: object) -> dict[str, Any] | str:
    """What a command prints; what it complains of if it fails."""
    command = [sys.executable, "-m", "jobs", *map(str, arguments)]
    with start(command, log) as session:
        status = session.wait(PATIENCE_S)
        said = session.log.read_text(errors="replace")
        return json.loads(session.output.read_text()) if status == 0 else said


def test_new_videos_join_and_repaired_ones_come_back(checkpoint: Path, tmp_path: Path):
    source, output, log = tmp_path / "videos", tmp_path / "corpus", tmp_path / "log"
    source.mkdir()
    whole = write_video(tmp_path / "whole.mp4", 30).read_bytes()
    write_video(source / "a.mp4", 40)
    (source / "broken.mp4").write_bytes(whole[:2000])
    with start(run_command(source, output, checkpoint), log) as session:
        finish(session, output)
    first = data_digests(output)

    write_video(source / "sub.mp4", 20)
    grown = infotok(log, "append", source, output)
    assert isinstance(grown, dict), grown
    assert (grown["generations"], grown["videos_committed"], grown["videos_quarantined"]) == (
        2,
        2,
        1,
    )

    assert (grown["videos_added"], grown["windows_added"]) == (1, grown["windows"] - 5)

    (source / "broken.mp4").write_bytes(whole)
    options = ["--reason", "TRUNCATED", "--reason", "CORRUPT_CONTAINER", "--statistics", "new"]
    retried = infotok(log, "retry-failed", source, output, *options)
    assert isinstance(retried, dict), retried
    assert (retried["generations"], retried["videos_committed"]) == (3, 3)
    assert (retried["videos_listed"], retried["videos_quarantined"]) == (3, 0)

    assert validate(Store(str(output))).faults == ()
    found = data_digests(output)
    data = {name for name in first if name.startswith(("data/", "wds/train"))}
    assert {name: found[name] for name in data} == {name: first[name] for name in data}
    # The run that made it would take away what has grown since.
    with start(run_command(source, output, checkpoint), log) as session:
        assert session.wait(PATIENCE_S) == 4
    assert data_digests(output) == found
