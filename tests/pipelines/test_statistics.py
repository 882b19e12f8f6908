"""The border between the passes: everything there, everything adds up, frozen once."""

from __future__ import annotations

from pathlib import Path

import pytest
from strategies import TOKENIZER
from work_folders import BROKEN, WINDOW, analysed, source_of, store_video, window

from pipelines.config import RunConfig, StorageConfig
from pipelines.errors import IncompleteError, PipelineError, PlanMismatchError
from pipelines.plan import ensure_plan
from pipelines.statistics import QUARANTINE, STATISTICS, SUMMARY, freeze_statistics, load_statistics
from pipelines.storage import Store
from pipelines.work import WorkFolder
from schemas.failures import FailureReason
from schemas.ids import video_id
from schemas.quarantine import decode_quarantine
from schemas.summary import AnalysisSummary
from schemas.units import window_sum

pytest_plugins = ["s3"]

LONG = [window(0.1, index=index) for index in range(20)]
SHORT = [window(0.5), window(0.0, index=1, shape=(1, 8, 8))]
VIDEOS = {"a.mp4": LONG, "b.mp4": BROKEN, "c.mp4": SHORT}


def test_the_statistics_hold_every_window(tmp_path: Path):
    done = analysed(tmp_path, VIDEOS)
    statistics = freeze_statistics(done.plan, done.work)
    assert (statistics.windows, statistics.videos) == (22, 2)
    assert (statistics.num_sampled, statistics.num_listed) == (3, 3)
    assert statistics.tokens == 21 * 192 + 64
    assert statistics.bins.weighted == sum(window_sum(w.information) for w in LONG + SHORT)
    assert statistics.plan_id == done.plan.head.plan_id
    assert statistics.tokenizer == TOKENIZER


def test_summary_and_quarantine_lie_beside_them(tmp_path: Path):
    done = analysed(tmp_path, VIDEOS)
    freeze_statistics(done.plan, done.work)
    summary = AnalysisSummary.from_bytes(done.work.store.read(SUMMARY))
    assert (summary.videos_listed, summary.videos_analysed, summary.videos_quarantined) == (3, 2, 1)
    assert (summary.windows, summary.positions) == (22, 21 * 192 + 64)
    assert summary.reasons == {FailureReason.TRUNCATED: 1}
    [row] = decode_quarantine(done.work.store.read(QUARANTINE))
    assert (row["uri"], row["reason"], row["detail"]) == ("b.mp4", "TRUNCATED", "no more data")


def test_the_order_of_the_listing_does_not_matter(tmp_path: Path):
    first = analysed(tmp_path / "1", VIDEOS)
    second = analysed(tmp_path / "2", dict(reversed(VIDEOS.items())))
    for done in (first, second):
        freeze_statistics(done.plan, done.work)
    for name in (STATISTICS, SUMMARY, QUARANTINE):
        assert first.work.store.read(name) == second.work.store.read(name)


def test_frozen_statistics_are_returned_as_they_are(tmp_path: Path):
    done = analysed(tmp_path, VIDEOS)
    first = freeze_statistics(done.plan, done.work)
    # Nothing is read again: receipts may be gone by then.
    done.work.store.delete_folder("videos")
    assert freeze_statistics(done.plan, done.work) == first
    assert load_statistics(done.plan, done.work) == first


def test_a_video_without_a_receipt_means_that_pass_one_is_not_finished(tmp_path: Path):
    done = analysed(tmp_path, VIDEOS)
    missing = video_id("c.mp4")
    done.work.store.delete(f"videos/{missing}.json")
    with pytest.raises(IncompleteError, match=rf"{missing}.*run `infotok analyse` again"):
        freeze_statistics(done.plan, done.work)
    assert not done.work.store.exists(STATISTICS)


def test_no_statistics_name_the_command_that_makes_them(tmp_path: Path):
    done = analysed(tmp_path, VIDEOS)
    with pytest.raises(IncompleteError, match="finish pass one with `infotok analyse`"):
        load_statistics(done.plan, done.work)


@pytest.mark.parametrize("other", ["plan_id", "tokenizer"])
def test_statistics_of_another_plan_or_tokenizer_are_refused(tmp_path: Path, other: str):
    done = analysed(tmp_path / "1", VIDEOS)
    statistics = freeze_statistics(done.plan, done.work)
    foreign = statistics.model_copy(update={other: "e" * 64})
    done.work.store.replace(STATISTICS, foreign.to_bytes())
    with pytest.raises(PlanMismatchError, match=rf"measured with {other} eeeeeeee"):
        load_statistics(done.plan, done.work)


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"format_version": 99}'])
def test_damaged_statistics_are_named(tmp_path: Path, data: bytes):
    done = analysed(tmp_path, VIDEOS)
    done.work.store.replace(STATISTICS, data)
    with pytest.raises(PlanMismatchError, match=r"statistics\.json cannot be used"):
        load_statistics(done.plan, done.work)


def test_statistics_that_were_changed_by_hand_are_refused(tmp_path: Path):
    done = analysed(tmp_path, VIDEOS)
    freeze_statistics(done.plan, done.work)
    data = done.work.store.read(STATISTICS)
    done.work.store.replace(STATISTICS, data.replace(b'"num_sampled": 3', b'"num_sampled": 2'))
    with pytest.raises(PipelineError, match="digest"):
        load_statistics(done.plan, done.work)


def test_a_corpus_of_broken_videos_has_empty_statistics(tmp_path: Path):
    done = analysed(tmp_path, {"a.mp4": BROKEN, "b.mp4": BROKEN})
    statistics = freeze_statistics(done.plan, done.work)
    assert (statistics.windows, statistics.tokens, statistics.num_listed) == (0, 0, 2)
    assert statistics.token_weighted_mean == 0.0


@pytest.mark.s3
def test_the_same_happens_in_a_bucket(bucket: str, s3_config: StorageConfig, tmp_path: Path):
    local = analysed(tmp_path, VIDEOS)
    store = Store(bucket, s3_config)
    plan = ensure_plan(
        source_of(dict.fromkeys(VIDEOS, 1000)),
        RunConfig(window=WINDOW),
        tokenizer=TOKENIZER,
        work=store,
    )
    work = WorkFolder(store=store, analysis_key="a" * 64)
    for uri in ("a.mp4", "b.mp4"):
        store_video(work, uri, VIDEOS[uri])
    with pytest.raises(IncompleteError, match="not every planned video"):
        freeze_statistics(plan, work)
    store_video(work, "c.mp4", VIDEOS["c.mp4"])
    assert freeze_statistics(plan, work) == freeze_statistics(local.plan, local.work)
