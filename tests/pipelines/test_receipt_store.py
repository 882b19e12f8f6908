"""A receipt counts from the moment it is published, wherever it lies and whenever a driver dies."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import TOKENIZER
from work_folders import BROKEN, Analysed, analysed, source_of, store_video, video, window

from pipelines.block_keeper import BlockKeeper
from pipelines.config import RunConfig
from pipelines.errors import ConflictError, PipelineError
from pipelines.plan import Plan, ensure_plan
from pipelines.receipt_store import ReceiptStore
from pipelines.statistics import freeze_statistics
from pipelines.storage import Store
from pipelines.work import WorkFolder
from schemas.failures import FailureReason, FailureStage
from schemas.ids import video_id
from schemas.plan import BLOCK_VIDEOS
from schemas.receipt_packs import PackedReceipt, decode_pack
from schemas.receipts import FailureRecord, VideoReceipt

VIDEOS = [f"{index}.mp4" for index in range(5)]


class DriverKilledError(BaseException):
    """Nothing of the driver runs after this."""


class MortalStore(Store):
    """A real folder whose writer dies before its n-th change."""

    lives = 10**9

    def _spend(self) -> None:
        if self.lives == 0:
            raise DriverKilledError
        self.lives -= 1

    def create(self, path: str, data: bytes) -> bool:
        self._spend()
        return super().create(path, data)

    def replace(self, path: str, data: bytes) -> None:
        self._spend()
        super().replace(path, data)

    def delete(self, path: str) -> None:
        self._spend()
        super().delete(path)


def plan_of(root: Path, uris: list[str]) -> Plan:
    source = source_of(dict.fromkeys(uris, 1))
    return ensure_plan(source, RunConfig(), tokenizer=TOKENIZER, work=Store(str(root)))


def receipt_of(
    uri: str, attempts: int = 1, reason: FailureReason = FailureReason.TRUNCATED
) -> VideoReceipt:
    failure = FailureRecord(reason=reason, stage=FailureStage.OPEN, detail="")
    return VideoReceipt(
        video_id=video_id(uri), uri=uri, version="v1", status="quarantined", failure=failure,
        attempts=attempts,
    )  # fmt: skip


def names(store: Store, folder: str) -> list[str]:
    return [path.removeprefix(f"{folder}/") for path, _ in store.list(folder)]


class Model:
    """What must be true of a folder in which drivers finish, pack, reopen, and die."""

    def __init__(self, root: Path) -> None:
        self.plan = plan_of(root, VIDEOS)
        self.store = MortalStore(str(root))
        self.work = WorkFolder(store=self.store, analysis_key="k")
        self.rows = list(self.plan.rows())
        self.expected: dict[str, VideoReceipt] = {}
        self.starts = 0

    def dies(self, lives: int, action: Callable[[], Any]) -> bool:
        self.store.lives = lives
        try:
            action()
        except DriverKilledError:
            return True
        finally:
            self.store.lives = 10**9
        return False

    def run(self, uris: list[str], lives: int) -> None:
        """A driver that goes on where the last one stopped, with some of the videos."""
        self.starts += 1

        def drive() -> None:
            keeper = BlockKeeper(self.plan, self.work)
            wave = [row for row in self.rows if row["uri"] in uris and not self.finished(row)]
            for row in wave:
                receipt = receipt_of(row["uri"], attempts=self.starts)
                keeper.put(receipt)
                self.expected[row["uri"]] = receipt
            keeper.wave_done(wave)

        self.dies(lives, drive)

    def reopen(self, uris: list[str], lives: int) -> None:
        ids = [video_id(uri) for uri in uris if uri in self.expected]
        if self.dies(lives, lambda: ReceiptStore(self.plan, self.store).reopen(0, ids)):
            # Half done: some run again and some do not, as `--retry-failed` says again.
            done = ReceiptStore(self.plan, self.store).finished()
            uris = [row["uri"] for row, there in zip(self.rows, done, strict=True) if not there]
        for uri in uris:
            self.expected.pop(uri, None)

    def finished(self, row: dict[str, Any]) -> bool:
        return row["uri"] in self.expected

    def check(self) -> None:
        store = ReceiptStore(self.plan, self.store)
        assert store.finished().tolist() == [self.finished(row) for row in self.rows]
        there = [row for row in self.rows if self.finished(row)]
        assert list(store.read(there)) == [self.expected[row["uri"]] for row in there]


lives = st.one_of(st.just(10**9), st.integers(0, 12))
some = st.lists(st.sampled_from(VIDEOS), unique=True)
steps = st.lists(st.tuples(st.sampled_from(["run", "run", "reopen"]), some, lives), max_size=8)


@settings(max_examples=30, deadline=None)
@given(steps)
def test_no_receipt_is_lost_doubled_or_changed_wherever_drivers_die(
    steps: list[tuple[str, list[str], int]],
):
    with tempfile.TemporaryDirectory() as folder:
        model = Model(Path(folder))
        for action, uris, life in steps:
            getattr(model, action)(uris, life)
            model.check()
        model.run(VIDEOS, 10**9)
        model.check()
        # Whatever happened before: one object in the end, and nothing beside it.
        ReceiptStore(model.plan, model.store).delete_shadowed()
        model.check()
        assert len(names(model.store, "receipts")) == 1
        assert names(model.store, "videos") == []


def test_a_block_is_packed_when_its_last_video_is_finished(tmp_path: Path):
    uris = [f"{index:05d}.mp4" for index in range(BLOCK_VIDEOS + 3)]
    plan = plan_of(tmp_path, uris)
    work = WorkFolder(store=Store(str(tmp_path)), analysis_key="k")
    keeper = BlockKeeper(plan, work)
    rows = list(plan.rows(np.arange(len(uris)) >= BLOCK_VIDEOS - 1))
    for row in rows:
        keeper.put(receipt_of(row["uri"]))
    keeper.wave_done(rows)
    assert names(work.store, "receipts") == ["000001/000.parquet"]
    # The first block still misses all videos but its last one, whose receipt stays loose.
    assert names(work.store, "videos") == [f"{rows[0]['video_id']}.json"]
    again = ReceiptStore(plan, work.store).finished()
    assert np.flatnonzero(again).tolist() == list(range(BLOCK_VIDEOS - 1, len(uris)))


def corpus(root: Path) -> Analysed:
    videos = {"a.mp4": video(1, 3), "b.mp4": BROKEN, "c.mp4": video(2, 20)}
    return analysed(root, videos)


def test_packing_changes_no_statistics(tmp_path: Path):
    loose, packed = corpus(tmp_path / "loose"), corpus(tmp_path / "packed")
    BlockKeeper(packed.plan, packed.work)
    assert names(packed.work.store, "videos") == []
    for done in (loose, packed):
        freeze_statistics(done.plan, done.work)
    for name in ("statistics.json", "summary.json", "quarantine.parquet"):
        assert loose.work.store.read(name) == packed.work.store.read(name)


def test_a_pack_holds_the_receipts_byte_for_byte(tmp_path: Path):
    done = corpus(tmp_path)
    rows = list(done.plan.rows())
    before = [done.work.store.read(f"videos/{row['video_id']}.json") for row in rows]
    BlockKeeper(done.plan, done.work)
    pack = decode_pack(done.work.store.read("receipts/000000/000.parquet"))
    assert [row.receipt for row in pack] == before
    assert [row.reason for row in pack] == [None, "TRUNCATED", None]
    assert [row.units for row in pack] == [1, 0, 2]


def test_a_late_writer_of_a_dead_driver_changes_nothing(tmp_path: Path):
    done = corpus(tmp_path)
    BlockKeeper(done.plan, done.work)
    store = ReceiptStore(done.plan, done.work.store)
    before = list(store.read(done.plan.rows()))
    store_video(done.work, "b.mp4", [window(0.5)])
    after = ReceiptStore(done.plan, done.work.store)
    assert list(after.read(done.plan.rows())) == before
    after.delete_shadowed()
    assert names(done.work.store, "videos") == []


def test_a_driver_with_other_receipts_for_a_packed_block_is_refused(tmp_path: Path):
    done = corpus(tmp_path)
    late = ReceiptStore(done.plan, done.work.store)
    BlockKeeper(done.plan, done.work)
    known = {
        row["video_id"]: PackedReceipt.of(receipt_of(row["uri"], attempts=2))
        for row in done.plan.rows()
    }
    with pytest.raises(ConflictError, match="already exists with other receipts"):
        late.pack(0, known)


def test_a_driver_that_wakes_up_behind_a_faster_one_takes_its_pack(tmp_path: Path):
    done = corpus(tmp_path)
    late = ReceiptStore(done.plan, done.work.store)
    assert not late.is_packed(0)
    BlockKeeper(done.plan, done.work)
    # One receipt of its own, published when the name was free again.
    store_video(done.work, "b.mp4", [window(0.5)])
    late.pack(0, {})
    assert late.is_packed(0)
    assert [r.windows for r in late.read(done.plan.rows())] == [3, 0, 20]
    assert names(done.work.store, "videos") == []


def test_only_set_aside_videos_with_the_reason_are_found_packed_or_not(tmp_path: Path):
    done = corpus(tmp_path)
    for _ in range(2):
        [found] = ReceiptStore(done.plan, done.work.store).quarantined(0)
        assert (found.video_id, found.reason) == (video_id("b.mp4"), "TRUNCATED")
        BlockKeeper(done.plan, done.work)
    ReceiptStore(done.plan, done.work.store).reopen(0, [found.video_id])
    assert ReceiptStore(done.plan, done.work.store).quarantined(0) == []
    assert ReceiptStore(done.plan, done.work.store).finished().tolist() == [True, False, True]


def test_a_video_without_a_receipt_is_not_there(tmp_path: Path):
    plan = plan_of(tmp_path, VIDEOS)
    store = ReceiptStore(plan, Store(str(tmp_path)))
    assert not store.finished().any()
    with pytest.raises(FileNotFoundError):
        list(store.read(plan.rows()))


@pytest.mark.parametrize("packed", [False, True])
def test_damage_is_named(tmp_path: Path, packed: bool):
    done = corpus(tmp_path)
    path = f"videos/{video_id('a.mp4')}.json"
    if packed:
        BlockKeeper(done.plan, done.work)
        path = "receipts/000000/000.parquet"
    done.work.store.replace(path, b"{")
    with pytest.raises(PipelineError, match=rf"{path} is damaged"):
        list(ReceiptStore(done.plan, done.work.store).read(done.plan.rows()))
