"""The one order of an epoch, and how any team shares it: by property."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.dataset.order import Lanes, shuffled, unit_order
from pipelines.dataset.streams import Progress, Stream, find_progress
from pipelines.training_draws import Purpose

teams = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))


def streams_of(team: tuple[int, int, int]) -> list[list[Stream]]:
    world_size, num_workers, batch_size = team
    return [
        [
            Stream(
                rank=rank, world_size=world_size, worker=worker, num_workers=num_workers,
                batch_size=batch_size,
            )
            for worker in range(num_workers)
        ]
        for rank in range(world_size)
    ]  # fmt: skip


@given(st.integers(0, 60), st.integers(1, 9))
def test_every_item_has_one_number_and_lanes_are_read_in_order(total: int, count: int):
    lanes = Lanes(total, count)
    places = [lanes.place(index) for index in range(total)]
    assert sorted(places) == list(range(total))
    for lane in range(count):
        own = places[lane::count]
        assert own == list(range(own[0], own[0] + len(own))) if own else lane >= total
    with pytest.raises(IndexError):
        lanes.place(total)


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {tuple(unit_order(seed, epoch=epoch, count=30)) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4
    assert all(sorted(one) == list(range(30)) for one in orders)
    assert unit_order(None, epoch=7, count=3).tolist() == [0, 1, 2]
    rows = {
        tuple(shuffled(0, Purpose.ROWS, epoch=epoch, unit=unit, count=30))
        for epoch in (0, 1)
        for unit in (0, 1)
    }
    assert len(rows) == 4


@given(teams, st.integers(0, 60), st.data())
def test_a_team_takes_every_item_once_and_each_step_the_next_ones(
    team: tuple[int, int, int], total: int, data: st.DataObject
):
    base = data.draw(st.integers(0, total))
    drop_last = data.draw(st.booleans())
    ranks = streams_of(team)
    world_size, _, batch_size = team
    share = world_size * batch_size
    taken = [
        list(stream.indices(base, 0, total, drop_last=drop_last))
        for rank in ranks
        for stream in rank
    ]
    together = sorted(index for indices in taken for index in indices)
    end = base + (total - base) // share * share if drop_last else total
    assert together == list(range(base, end))
    # A stream that goes on from its n-th item takes what was left.
    stream = data.draw(st.sampled_from([stream for rank in ranks for stream in rank]))
    own = list(stream.indices(base, 0, total, drop_last=drop_last))
    n = data.draw(st.integers(0, len(own)))
    assert list(stream.indices(base, n, total, drop_last=drop_last)) == own[n:]


@given(teams, st.integers(0, 60), st.data())
def test_a_state_between_steps_says_how_far_the_team_is(
    team: tuple[int, int, int], total: int, data: st.DataObject
):
    world_size, num_workers, batch_size = team
    share = world_size * batch_size
    steps = data.draw(st.integers(0, total // share))
    workers = [
        Progress(
            identity="i", epoch=2, total=total, world_size=world_size, num_workers=num_workers,
            batch_size=batch_size, taken=len(range(worker, steps, num_workers)) * batch_size,
        )
        for worker in range(num_workers)
    ]  # fmt: skip
    state = {"snapshot": {f"worker_{n}": {"d": p.to_state()} for n, p in enumerate(workers)}}
    found = find_progress(state)
    assert (found.epoch, found.base, found.taken) == (2, steps * share, 0)
    unsaved = {**state, "_steps_since_snapshot": 1}
    assert find_progress(unsaved).base == min((steps + 1) * share, total)
    if num_workers > 1:
        del state["snapshot"]["worker_0"]
        with pytest.raises(ValueError, match="whole loader"):
            find_progress(state)


def test_a_state_within_a_batch_is_refused_where_others_would_be_ahead():
    one = Progress(identity="i", epoch=0, total=100, taken=3, batch_size=2)
    assert find_progress({"loader": one.to_state()}).base == 3
    with pytest.raises(ValueError, match="between two batches"):
        find_progress({"loader": replace(one, world_size=2).to_state()})
    with pytest.raises(ValueError, match="no state"):
        find_progress({"loader": 1})
    with pytest.raises(ValueError, match="another release"):
        find_progress({**one.to_state(), "more": 1})
