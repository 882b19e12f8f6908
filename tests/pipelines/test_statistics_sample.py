"""Statistics of some videos: which ones, what they promise, and what they say of themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import TOKENIZER
from work_folders import (
    BROKEN,
    WINDOW,
    Analysed,
    analysed,
    rows_of,
    source_of,
    store_video,
    video,
    write,
)

from infotok_core.config import mini
from pipelines.card import dataset_card
from pipelines.config import RunConfig
from pipelines.errors import PipelineError, PlanMismatchError
from pipelines.finalise import finalise
from pipelines.id_set import IdSet
from pipelines.inspect import describe_object
from pipelines.plan import Plan, ensure_plan
from pipelines.shards import shard_spec
from pipelines.statistics import (
    STATISTICS,
    SUMMARY,
    check_sample,
    freeze_sample,
    freeze_statistics,
    sample_videos,
)
from pipelines.storage import Store
from pipelines.work import WorkFolder
from schemas.ids import video_id
from schemas.info import CorpusInfo

VIDEOS = {f"{n}.mp4": video(n, 3, level=0.02 + 0.002 * n) for n in range(24)}


def planned(root: Path, uris: list[str]) -> Plan:
    source = source_of(dict.fromkeys(uris, 1000))
    return ensure_plan(source, RunConfig(window=WINDOW), tokenizer=TOKENIZER, work=Store(str(root)))


def members(sample: IdSet | None, uris: list[str]) -> set[str]:
    return set(uris) if sample is None else {uri for uri in uris if video_id(uri) in sample}


@settings(max_examples=20, deadline=None)
@given(st.permutations(sorted(VIDEOS)), st.floats(0.01, 1), st.floats(0.01, 1))
def test_the_sample_depends_on_the_videos_alone_and_grows(
    tmp_path_factory: pytest.TempPathFactory, uris: list[str], one: float, other: float
):
    plan = planned(tmp_path_factory.mktemp("a"), uris)
    again = planned(tmp_path_factory.mktemp("b"), sorted(uris))
    smaller, larger = (
        members(sample_videos(plan, fraction), uris) for fraction in sorted((one, other))
    )
    assert smaller == members(sample_videos(again, min(one, other)), uris)
    assert smaller <= larger
    assert len(smaller) == max(round(min(one, other) * len(uris)), 2)


def test_all_videos_are_no_sample(tmp_path: Path):
    assert sample_videos(planned(tmp_path / "1", sorted(VIDEOS)), 1.0) is None
    assert sample_videos(planned(tmp_path / "2", ["a", "b"]), 0.001) is None


def of_sample(root: Path, fraction: float) -> tuple[Analysed, IdSet]:
    """A work folder in which only the sample is analysed, and its statistics are frozen."""
    plan = planned(root, sorted(VIDEOS))
    work = WorkFolder(store=plan.work, analysis_key="a" * 64)
    sample = sample_videos(plan, fraction)
    assert sample is not None
    for uri in members(sample, sorted(VIDEOS)):
        store_video(work, uri, VIDEOS[uri])
    freeze_sample(plan, work, sample)
    return Analysed(plan=plan, work=work, config=RunConfig(window=WINDOW)), sample


def test_the_sample_is_frozen_first_and_stands(tmp_path: Path):
    done, sample = of_sample(tmp_path / "work", 0.5)
    frozen = done.work.store.read(STATISTICS)
    assert not done.work.store.exists(SUMMARY)
    for uri in VIDEOS.keys() - members(sample, sorted(VIDEOS)):
        store_video(done.work, uri, VIDEOS[uri])
    statistics = freeze_statistics(done.plan, done.work, sample)
    assert done.work.store.read(STATISTICS) == frozen
    assert (statistics.num_sampled, statistics.num_listed) == (12, 24)
    assert statistics.windows == 36
    # Frozen at the end, from all receipts at once, it is the same.
    whole = analysed(tmp_path / "whole", VIDEOS)
    assert freeze_statistics(whole.plan, whole.work, sample) == statistics
    true_mean = freeze_statistics(*_whole(tmp_path / "all")).token_weighted_mean
    assert statistics.confidence_half_width is not None
    assert abs(statistics.token_weighted_mean - true_mean) < 2 * statistics.confidence_half_width


def _whole(root: Path) -> tuple[Plan, WorkFolder]:
    done = analysed(root, VIDEOS)
    return done.plan, done.work


def test_another_sample_is_refused(tmp_path: Path):
    done, sample = of_sample(tmp_path, 0.5)
    check_sample(done.plan, done.work, sample)
    for other in (None, sample_videos(done.plan, 0.25)):
        with pytest.raises(PlanMismatchError, match="frozen from 12 videos of 24"):
            check_sample(done.plan, done.work, other)


def test_the_corpus_says_that_its_rate_is_approximate(tmp_path: Path):
    done = analysed(tmp_path / "work", VIDEOS)
    sample = sample_videos(done.plan, 0.25)
    statistics = freeze_statistics(done.plan, done.work, sample)
    output = Store(str(tmp_path / "out"))
    spec = shard_spec(done.config, done.plan, done.work, output, statistics)
    write(spec)
    summary = finalise(spec, statistics, mini())
    assert summary["rate_from_sample"] is True
    assert len(rows_of(spec)) == 72
    assert 0.001 < abs(summary["rate_realised"] - 0.5) < 0.2
    info = CorpusInfo.from_bytes(output.read("meta/info.json"))
    assert info.statistics_sample is not None
    assert (info.statistics_sample.videos, info.statistics_sample.listed) == (6, 24)
    assert "only approximately" in info.statistics_sample.meaning
    card = dataset_card(info, statistics)
    assert "(95 %), from 6 of 24 videos: the scale was solved on a sample" in card
    text = describe_object(STATISTICS, output.read("meta/statistics.json"))
    assert "6 of 24 listed ones" in text
    assert "+-" in text


def test_a_full_count_says_nothing_of_samples(tmp_path: Path):
    done = analysed(tmp_path / "work", VIDEOS)
    spec = done.spec(tmp_path / "out")
    write(spec)
    finalise(spec, freeze_statistics(done.plan, done.work), mini())
    assert b"sample" not in spec.output.read("meta/info.json")
    assert "E[ELBO]" not in spec.output.read("README.md").decode()


def test_a_sample_without_information_is_no_base_for_a_budget(tmp_path: Path):
    uris = {f"{n}.mp4": BROKEN for n in range(8)}
    done = analysed(tmp_path / "work", uris)
    statistics = freeze_statistics(done.plan, done.work, sample_videos(done.plan, 0.5))
    with pytest.raises(PipelineError, match=r"sample of 4 videos.*larger statistics\.sample"):
        shard_spec(done.config, done.plan, done.work, Store(str(tmp_path / "out")), statistics)
