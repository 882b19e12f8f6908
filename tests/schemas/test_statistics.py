from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import TOKENIZER, bins_of, elbo_bins

from schemas.statistics import ElboBins, ElboStatistics, StatisticsFold, merge_statistics
from schemas.versions import FormatError


def statistics_of(
    videos: list[ElboBins], *, num_listed: int | None = None, tokenizer: str = TOKENIZER
) -> ElboStatistics:
    fold = StatisticsFold()
    for bins in videos:
        fold.add_video(bins)
    listed = len(videos) if num_listed is None else num_listed
    return fold.freeze(plan_id="p", tokenizer=tokenizer, num_listed=listed)


@given(st.lists(elbo_bins, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_the_videos_does_not_change_a_byte(videos: list[ElboBins], random):
    shuffled = random.sample(videos, len(videos))
    assert statistics_of(videos).to_bytes() == statistics_of(shuffled).to_bytes()


@given(st.lists(elbo_bins, max_size=4))
def test_statistics_survive_storage(videos: list[ElboBins]):
    statistics = statistics_of(videos)
    assert ElboStatistics.from_bytes(statistics.to_bytes(indent=2)) == statistics


def test_a_change_of_one_count_is_noticed():
    document = json.loads(statistics_of([bins_of([(5 << 20, 100)])]).to_bytes())
    document["bins"]["bins"][0][1] = 2
    with pytest.raises(FormatError, match="was changed"):
        ElboStatistics.from_bytes(json.dumps(document).encode())


def test_the_summary_is_not_believed():
    statistics = statistics_of([bins_of([(5 << 20, 100)])])
    document = json.loads(statistics.to_bytes())
    document["summary"]["token_weighted_mean"] = 99.0
    assert ElboStatistics.from_bytes(json.dumps(document).encode()) == statistics


def test_statistics_of_another_plan_or_tokenizer_are_refused():
    statistics = statistics_of([])
    statistics.require(plan_id="p", tokenizer=TOKENIZER)
    with pytest.raises(ValueError, match="plan p cannot be used with plan q"):
        statistics.require(plan_id="q", tokenizer=TOKENIZER)
    with pytest.raises(ValueError, match="tokenizer"):
        statistics.require(plan_id="p", tokenizer="other")


@given(st.lists(elbo_bins, max_size=4), st.lists(elbo_bins, max_size=4))
def test_statistics_of_two_runs_merge_to_those_of_one(
    first: list[ElboBins], second: list[ElboBins]
):
    merged = merge_statistics(statistics_of(first), statistics_of(second), plan_id="p")
    assert merged == statistics_of(first + second)


def test_statistics_of_two_tokenizers_do_not_merge():
    with pytest.raises(ValueError, match="one tokenizer"):
        merge_statistics(statistics_of([]), statistics_of([], tokenizer="b"), plan_id="p")


def test_more_videos_than_listed_are_refused():
    with pytest.raises(ValueError, match="counted 1 videos of 0"):
        statistics_of([ElboBins.empty()], num_listed=0)


def test_a_full_count_has_no_confidence_interval():
    videos = [bins_of([(5 << 20, 100)]), bins_of([(7 << 20, 100)])]
    assert statistics_of(videos).confidence_half_width is None
    assert statistics_of(videos[:1], num_listed=5).confidence_half_width is None
    assert statistics_of(videos, num_listed=5).confidence_half_width > 0


def test_the_interval_of_a_sample_holds_the_mean_of_the_corpus_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    corpus: list[ElboBins] = []
    for _ in range(300):
        level = rng.lognormal(0, 0.5)
        corpus.append(
            bins_of(
                [
                    (int(level * rng.uniform(0.8, 1.2) * 2**20) * 100, 100)
                    for _ in range(rng.integers(1, 8))
                ]
            )
        )
    truth = statistics_of(corpus).token_weighted_mean
    hits = 0
    for _ in range(200):
        sample = [corpus[index] for index in rng.choice(300, 60, replace=False)]
        estimate = statistics_of(sample, num_listed=300)
        width = estimate.confidence_half_width
        assert width is not None
        hits += abs(estimate.token_weighted_mean - truth) <= width
    assert 0.87 <= hits / 200 <= 0.99
