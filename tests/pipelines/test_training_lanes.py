"""Where each clip of a run comes from: arithmetic, by property."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.training_config import ClipsConfig
from pipelines.training_lanes import LanePlan, Place


def config_of(batch_size: int = 4, **changes: int) -> ClipsConfig:
    return ClipsConfig(frames=5, crop=16, size=64, batch_size=batch_size, **changes)


@st.composite
def configs(draw: st.DrawFn) -> ClipsConfig:
    names = ("batch_size", "world_size", "num_lanes", "block_videos", "windows_per_visit", "seed")
    return config_of(**{name: draw(st.integers(1, 7)) for name in names})


@given(configs(), st.integers(1, 20), st.integers(1, 12))
def test_every_clip_has_a_place_of_its_own_and_no_place_is_left_out(
    config: ClipsConfig, num_videos: int, steps: int
):
    plan = LanePlan(config, num_videos)
    places = [plan.place(sample) for sample in range(steps * config.global_batch)]
    assert len(set(places)) == len(places)
    for lane in range(plan.num_lanes):
        dealt = [place for place in places if place.lane == lane]
        positions = [place.block * plan.clips_per_block + place.slot for place in dealt]
        # In order, and without holes: nothing is decoded in vain.
        assert positions == list(range(positions[0], positions[0] + len(positions)))
        assert positions[0] < plan.clips_per_block
        assert all(0 <= place.slot < plan.clips_per_block for place in dealt)


@given(configs(), st.integers(0, 50), st.data())
def test_ranks_share_the_clips_of_a_step_among_them(
    config: ClipsConfig, step: int, data: st.DataObject
):
    alone = config_of(
        config.global_batch, num_lanes=config.num_lanes, block_videos=config.block_videos,
        windows_per_visit=config.windows_per_visit, seed=config.seed,
    )  # fmt: skip
    ranks = [
        config_of(
            config.batch_size, world_size=config.world_size, rank=rank,
            num_lanes=config.num_lanes, block_videos=config.block_videos,
            windows_per_visit=config.windows_per_visit, seed=config.seed,
        )
        for rank in range(config.world_size)
    ]  # fmt: skip
    num_videos = data.draw(st.integers(1, 20))
    together = places_of(alone, step, num_videos)
    apart = [places_of(rank, step, num_videos) for rank in ranks]
    assert [place for places in apart for place in places] == together
    lanes = [{place.lane for place in places} for places in apart]
    num_lanes = LanePlan(config, num_videos).num_lanes
    if num_lanes % config.world_size == 0:
        assert sum(len(own) for own in lanes) == num_lanes
        assert set.union(*lanes) == set(range(num_lanes))


def places_of(config: ClipsConfig, step: int, num_videos: int) -> list[Place]:
    plan, first = LanePlan(config, num_videos), config.first_sample(step)
    return [plan.place(sample) for sample in range(first, first + config.batch_size)]


@given(configs(), st.integers(1, 20), st.integers(1, 4))
def test_visits_of_all_blocks_go_through_the_corpus_epoch_by_epoch(
    config: ClipsConfig, num_videos: int, epochs: int
):
    plan = LanePlan(config, num_videos)
    rounds = -(-epochs * num_videos // (plan.num_lanes * config.block_videos))
    visits = [
        visit
        for block in range(rounds)
        for lane in range(plan.num_lanes)
        for visit in plan.visits(lane, block)
    ]
    assert sorted(visits) == list(range(len(visits)))
    seen = Counter(plan.video(visit) for visit in range(epochs * num_videos))
    assert seen == dict.fromkeys(range(num_videos), epochs)


@given(configs(), st.integers(1, 20), st.integers(0, 9))
def test_substitutes_are_all_videos(config: ClipsConfig, num_videos: int, block: int):
    plan = LanePlan(config, num_videos)
    substitutes = [plan.video(visit) for visit in plan.substitutes(0, block)]
    assert sorted(substitutes) == list(range(num_videos))


def test_the_deal_of_each_block_is_another():
    plan = LanePlan(config_of(num_lanes=2), 5)
    deals = {tuple(plan.deal(lane, block)) for lane in (0, 1) for block in range(4)}
    assert len(deals) == 8
    assert all(sorted(deal) == list(range(plan.clips_per_block)) for deal in deals)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": 80}, "a crop of 80 is larger than frames of size 64"),
        ({"size": 60}, "multiple of 16"),
        ({"rank": 2, "world_size": 2}, "rank 2 is not one of 2"),
        ({"frames": 194}, r"frames must be 1 \.\. 193"),
        ({"num_lanes": 0}, "num_lanes must be at least 1"),
        ({"zoom_share": 1.5}, r"zoom_share must be in \[0, 1\]"),
        ({"zoom_max": 0.5}, "zoom_max must be at least 1"),
        ({"workers": 0}, "workers must be at least 1"),
    ],
)
def test_numbers_that_do_not_fit_together_are_errors(changes: dict[str, int], message: str):
    good = {"frames": 5, "crop": 16, "size": 64, "batch_size": 4}
    with pytest.raises(ValueError, match=message):
        ClipsConfig(**{**good, **changes})
