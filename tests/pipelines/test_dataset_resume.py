"""A trainer that stops anywhere goes on with the next item, whatever team goes on."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from corpora import Corpus, build_corpus
from shared import requires_shared

from pipelines.dataset import Buckets, Packing, TokenDataset

torchdata = pytest.importorskip("torchdata.stateful_dataloader")
pytestmark = pytest.mark.filterwarnings("ignore:.*set_vital", "ignore:This DataLoader will create")

MODES = [None, Packing(context=150), Buckets(batch_size=2)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    build_corpus(folder, formats=("parquet",), num_videos=7)
    return folder


def dataset(root: Path, mode: Any = None, **options: Any) -> TokenDataset:
    return TokenDataset(root, mode, seed=5, lanes=3, unit_rows=4, drop_last=False, **options)


def key(item: dict[str, Any]) -> str:
    return repr([item["tokens"].tolist(), item.get("clip_id")])


def keys(items: Iterable[dict[str, Any]]) -> list[str]:
    return [key(item) for item in items]


def ranks_of(root: Path, mode: Any, size: int, state: Any = None) -> list[TokenDataset]:
    ranks = [dataset(root, mode, rank=rank, world_size=size) for rank in range(size)]
    for rank in ranks:
        if state is not None:
            rank.load_state_dict(state)
    return ranks


def steps(ranks: list[TokenDataset], count: int | None) -> list[str]:
    """What the ranks take together in so many steps, in order of the step, then the rank."""
    taken = [iter(rank) for rank in ranks]
    found: list[str] = []
    while count is None or count > 0:
        step = [key(item) for one in taken if (item := next(one, None)) is not None]
        if not step:
            break
        found += step
        count = None if count is None else count - 1
    return found


@pytest.mark.parametrize("mode", MODES, ids=["samples", "packing", "buckets"])
def test_every_break_point_of_an_epoch_is_as_if_there_had_been_none(root: Path, mode: Any):
    whole = keys(dataset(root, mode))
    assert len(whole) > 6
    one, again = dataset(root, mode), dataset(root, mode)
    for stop in range(len(whole) + 1):
        begun = [key(item) for item, _ in zip(one, range(stop), strict=False)]
        # zip asks for one more than it gives, which is then part of the state.
        state = one.state_dict()
        again.load_state_dict(pickle.loads(pickle.dumps(state)))
        ahead = state["taken"]
        assert keys(again) == whole[ahead:]
        assert begun == whole[:stop]


@pytest.mark.parametrize("mode", MODES, ids=["samples", "packing", "buckets"])
def test_one_rank_goes_on_as_two_and_two_as_three(root: Path, mode: Any):
    whole = keys(dataset(root, mode))
    for first in range(len(whole) // 2):
        one = ranks_of(root, mode, 1)
        taken = steps(one, first)
        two = ranks_of(root, mode, 2, one[0].state_dict())
        taken += steps(two, 1)
        three = ranks_of(root, mode, 3, two[0].state_dict())
        taken += steps(three, None)
        assert taken == whole, first


@requires_shared
@pytest.mark.shared
@pytest.mark.parametrize("mode", MODES, ids=["samples", "packing", "buckets"])
def test_so_it_is_on_real_footage(footage: Corpus, mode: Any):
    test_every_break_point_of_an_epoch_is_as_if_there_had_been_none(Path(footage.store.url), mode)
    test_one_rank_goes_on_as_two_and_two_as_three(Path(footage.store.url), mode)


@requires_shared
@pytest.mark.shared
@pytest.mark.parametrize("mode", [None, Packing(context=150)], ids=["samples", "packing"])
def test_real_footage_passes_through_any_loader_once(footage: Corpus, mode: Any):
    root = Path(footage.store.url)
    whole = keys(dataset(root, mode))
    for workers, batch_size, stop in ((0, 2, 3), (2, 2, 3), (2, 1, 4)):
        _, before = loader(root, workers, batch_size, mode)
        batches = iter(before)
        begun = [key(item) for _ in range(stop) for item in next(batches)]
        state = before.state_dict()
        del batches
        data, other = loader(root, 3, 3, mode)
        data.load_state_dict(state)
        assert begun + keys(chain.from_iterable(other)) == whole


def loader(root: Path, workers: int, batch_size: int, mode: Any = None) -> tuple[Any, Any]:
    data = dataset(root, mode, batch_size=batch_size)
    made = torchdata.StatefulDataLoader(
        data, batch_size=batch_size, num_workers=workers, collate_fn=list
    )
    return data, made


def test_worker_counts_change_neither_the_order_nor_what_is_left(root: Path):
    whole = keys(dataset(root))
    for workers, batch_size, stop in ((0, 2, 3), (2, 2, 0), (2, 2, 3), (2, 1, 4)):
        _, before = loader(root, workers, batch_size)
        batches = iter(before)
        begun = [key(item) for _ in range(stop) for item in next(batches)]
        state = before.state_dict()
        del batches
        _, same = loader(root, workers, batch_size)
        same.load_state_dict(state)
        assert begun + keys(chain.from_iterable(same)) == whole
        data, other = loader(root, 3, 3)
        data.load_state_dict(state)
        assert begun + keys(chain.from_iterable(other)) == whole


@pytest.mark.parametrize("every", [1, 3])
def test_any_team_goes_on_from_every_break_point_of_a_loader(root: Path, every: int):
    go_on_from_every_break_point(root, every)


@requires_shared
@pytest.mark.shared
@pytest.mark.parametrize("every", [1, 3])
def test_any_team_goes_on_with_real_footage(footage: Corpus, every: int):
    go_on_from_every_break_point(Path(footage.store.url), every)


def go_on_from_every_break_point(root: Path, every: int) -> None:
    """Of a loader with two workers, whose states are ``every`` steps apart, as three ranks."""
    whole = keys(dataset(root))
    made = torchdata.StatefulDataLoader(
        dataset(root, batch_size=2),
        batch_size=2,
        num_workers=2,
        collate_fn=list,
        snapshot_every_n_steps=every,
    )
    batches, begun = iter(made), list[str]()
    states = [(0, made.state_dict())]
    for batch in batches:
        begun += keys(batch)
        states.append((len(begun), pickle.loads(pickle.dumps(made.state_dict()))))
    assert begun == whole
    for stop, state in states:
        rest = steps(ranks_of(root, None, 3, state), None)
        assert begun[:stop] + rest == whole, stop


def test_kept_workers_learn_of_the_next_epoch(root: Path):
    data = dataset(root)
    made = torchdata.StatefulDataLoader(
        data, batch_size=None, num_workers=2, persistent_workers=True
    )
    epochs = []
    for epoch in range(2):
        data.set_epoch(epoch)
        epochs.append(keys(made))
    alone = dataset(root)
    alone.set_epoch(1)
    assert epochs[1] == keys(alone) != epochs[0]
    assert sorted(epochs[0]) == sorted(epochs[1])


def test_a_pickled_dataset_is_the_same_in_another_process(root: Path):
    data = dataset(root, Packing(context=150))
    data.set_epoch(3)
    whole = keys(data)
    again = pickle.loads(pickle.dumps(data))
    assert again.epoch == 3
    assert keys(again) == whole


def test_an_epoch_behind_the_resumed_one_begins_at_its_beginning(root: Path):
    one = dataset(root)
    next(iter(one))
    state = one.state_dict()
    again = dataset(root)
    again.load_state_dict(state)
    rest = len(keys(again))
    again.set_epoch(1)
    assert again.state_dict()["epoch"] == 1
    assert len(keys(again)) == rest + 1


@pytest.mark.parametrize(
    ("workers", "kept"), [(0, False), (2, False), (2, True)], ids=["alone", "forked", "kept"]
)
@pytest.mark.parametrize("by", ["loader", "dataset"])
def test_a_state_is_gone_on_from_once(root: Path, workers: int, kept: bool, by: str):
    """Whoever forgets `set_epoch` sees the whole epoch again, not its rest for ever."""
    whole = keys(dataset(root))
    _, before = loader(root, workers, 2)
    batches = iter(before)
    for _ in range(3):
        next(batches)
    state = before.state_dict()
    del batches
    data = dataset(root, batch_size=2)
    made = torchdata.StatefulDataLoader(
        data, batch_size=2, num_workers=workers, collate_fn=list, persistent_workers=kept
    )
    (made if by == "loader" else data).load_state_dict(state)
    passes = [keys(chain.from_iterable(made)) for _ in range(3)]
    assert passes == [whole[6:], whole, whole]


def test_a_state_of_a_later_epoch_waits_for_it(root: Path):
    one = dataset(root)
    one.set_epoch(1)
    whole = keys(one)
    next(iter(one))
    again = dataset(root)
    again.load_state_dict(one.state_dict())
    assert again.epoch == 1
    again.set_epoch(0)
    assert len(keys(again)) == len(whole)
    again.set_epoch(1)
    assert keys(again) == whole[1:]


@pytest.mark.parametrize(("told", "taken"), [(1, 4), (1, 2), (4, 2), (3, 2)])
def test_a_loader_with_another_batch_size_than_it_was_told_is_found_out(
    root: Path, told: int, taken: int
):
    """With several workers its items do not follow one another: some would come twice."""
    whole = keys(dataset(root))
    made = torchdata.StatefulDataLoader(
        dataset(root, batch_size=told), batch_size=taken, num_workers=2, collate_fn=list
    )
    begun, refused = list[str](), list[str]()
    for batch in made:
        begun += keys(batch)
        again = dataset(root)
        try:
            again.load_state_dict(made.state_dict())
        except ValueError as error:
            refused.append(str(error))
        else:
            assert sorted(begun + keys(again)) == sorted(whole)
    assert refused
    assert all("batch_size" in said or "within a batch" in said for said in refused)


def test_a_state_of_another_order_is_refused(root: Path):
    state = dataset(root).state_dict()
    others = (
        TokenDataset(root, seed=6, lanes=3, unit_rows=4),
        TokenDataset(root, seed=5, lanes=2, unit_rows=4),
        TokenDataset(root, seed=5, lanes=3, unit_rows=8),
        dataset(root, Packing(context=150)),
        dataset(root, videos=lambda video: video > "8"),
    )
    for other in others:
        with pytest.raises(ValueError, match="another corpus or order"):
            other.load_state_dict(state)


def test_a_worker_alone_does_not_speak_for_its_team(root: Path):
    _, two = loader(root, 2, 1)
    batches = iter(two)
    next(batches)
    worker = two.state_dict()["_snapshot"]["_worker_snapshots"]["worker_0"]["dataset_state"]
    del batches
    alone = dataset(root)
    alone.load_state_dict(worker)
    with pytest.raises(ValueError, match="whole loader"):
        next(iter(alone))


def test_ranks_that_would_wait_for_each_other_leave_out_the_rest(root: Path):
    whole = len(keys(dataset(root)))
    ranks = [
        TokenDataset(root, lanes=3, unit_rows=4, rank=rank, world_size=3, batch_size=2)
        for rank in range(3)
    ]
    assert [len(keys(rank)) for rank in ranks] == [whole // 6 * 2] * 3


def test_the_environment_of_torchrun_says_the_rank(root: Path, monkeypatch: pytest.MonkeyPatch):
    whole = keys(dataset(root))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert keys(dataset(root)) == whole[1::2]


def test_no_warning_is_our_own(root: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keys(dataset(root, Packing(context=150)))
