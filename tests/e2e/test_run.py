"""A finished corpus: what holds of it."""

from __future__ import annotations

import pytest
from runs import Finished, stored

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
