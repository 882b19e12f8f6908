from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import TOKENIZER, bins_of, elbo_bins, information_maps

from schemas.statistics import ElboBins, ElboStatistics, StatisticsFold, merge_statistics
from schemas.token_bins import TokenBins
from schemas.versions import FormatError
from schemas.window_counts import WindowCounter


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


@given(st.lists(elbo_bins, max_size=4), st.lists(elbo_bins, max_size=4))
def test_statistics_of_two_runs_merge_to_those_of_one(
    first: list[ElboBins], second: list[ElboBins]
):
    merged = merge_statistics(statistics_of(first), statistics_of(second), plan_id="p")
    assert merged == statistics_of(first + second)


def of_tokens(
    maps: list[NDArray[np.float16]], *, token_floor: float | None = 0.25
) -> ElboStatistics:
    """A video per window."""
    fold = StatisticsFold(token_floor)
    for one in maps:
        counter = WindowCounter(token_floor)
        counter.add(one)
        fold.add_video(*counter.freeze())
    return fold.freeze(plan_id="p", tokenizer=TOKENIZER, num_listed=len(maps))


@given(st.lists(information_maps(), max_size=5), st.randoms(use_true_random=False))
def test_counted_tokens_survive_storage_and_no_order_matters(maps, random):
    statistics = of_tokens(maps)
    shuffled = of_tokens(random.sample(maps, len(maps)))
    assert statistics.to_bytes() == shuffled.to_bytes()
    assert ElboStatistics.from_bytes(statistics.to_bytes(indent=2)) == statistics
    # Without them it is the document that it always was.
    plain = of_tokens(maps, token_floor=None)
    assert b"token_bins" not in plain.to_bytes()
    assert plain.to_bytes() == statistics_of([one.bins for one in _each(maps)]).to_bytes()


def _each(maps: list[NDArray[np.float16]]) -> list[ElboStatistics]:
    return [of_tokens([one], token_floor=None) for one in maps]


@given(st.lists(information_maps(), max_size=3), st.lists(information_maps(), max_size=3))
def test_counted_tokens_of_two_runs_merge_to_those_of_one(first, second):
    merged = merge_statistics(of_tokens(first), of_tokens(second), plan_id="p")
    assert merged == of_tokens(first + second)


def test_tokens_that_not_all_parts_have_counted_alike_are_left_out():
    dim = [np.full(16, 0.25, np.float16)]
    for floor in (None, 0.5):
        merged = merge_statistics(of_tokens(dim), of_tokens(dim, token_floor=floor), plan_id="p")
        assert merged.token_bins is None
        assert merged == of_tokens(dim * 2, token_floor=None)


def test_a_video_whose_tokens_were_not_counted_is_an_error():
    with pytest.raises(ValueError, match="were not counted"):
        StatisticsFold(0.25).add_video(bins_of([(5 << 20, 100)]))
    StatisticsFold(0.25).add_video(ElboBins.empty())


def test_tokens_that_are_not_those_of_the_windows_are_refused():
    statistics = of_tokens([np.full(16, 0.25, np.float16)])
    other = {"token_bins": TokenBins(min_rate=0.25, always=15)}
    with pytest.raises(ValueError, match="windows of 16 tokens, but 15 were counted"):
        ElboStatistics.model_validate(statistics.model_copy(update=other).model_dump())


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
