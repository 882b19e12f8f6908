"""An output holds one corpus, wherever it lies, and says what differs from another one."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from corpora_by_hand import bytes_of, without_charts
from work_folders import Analysed, analysed, video, write

from infotok_core.config import mini
from infotok_core.shape import shape_of
from pipelines.claims import claim_shards
from pipelines.errors import PlanMismatchError
from pipelines.finalise import finalise
from pipelines.moved import adopt
from pipelines.observe import Progress, RunControl
from pipelines.shards import ShardSpec
from pipelines.storage import Store
from pipelines.validate import validate
from schemas.ids import digest
from schemas.info import CorpusInfo
from schemas.layout import CONFIG_PATH, INFO_PATH

VIDEOS = {"a.mp4": video(1, 2), "b.mp4": video(2, 3, 0.4), "c.mp4": video(3, 1)}
SHARDS = {0, 1, 2}


@pytest.fixture(autouse=True)
def _plain() -> Iterator[None]:
    with without_charts():
        yield


@pytest.fixture
def done(tmp_path: Path) -> Analysed:
    return analysed(tmp_path / "work", VIDEOS, format="both", shard_source_bytes=1000)


def finished(done: Analysed, spec: ShardSpec) -> ShardSpec:
    claimed = claim_shards(spec)
    write(claimed)
    finalise(claimed, done.statistics(), shape_of(mini()))
    return claimed


def adopted(spec: ShardSpec, shards: set[int] = SHARDS) -> set[int]:
    control = RunControl(run_id="run", clock=time.monotonic, say=print)
    progress = Progress(
        control=control, stage="tokenise", total=3, total_bytes=0, interval_s=1e9, watchdog_s=1e9
    )
    progress.start()
    return adopt(spec, sorted(shards), progress)


# Where it lies


def test_a_corpus_that_was_moved_is_finished_there_and_stays_byte_for_byte(
    done: Analysed, tmp_path: Path
):
    finished(done, done.spec(tmp_path / "out"))
    shutil.move(tmp_path / "out", tmp_path / "moved")
    before = bytes_of(Store(str(tmp_path / "moved")))
    spec = claim_shards(done.spec(tmp_path / "moved"))
    # No unit is read for it.
    done.work.store.delete_folder("units")
    assert adopted(spec) == SHARDS
    finalise(spec, done.statistics(), shape_of(mini()))
    assert bytes_of(spec.output) == before
    assert validate(spec.output).faults == ()


def test_a_link_to_a_corpus_is_that_corpus(done: Analysed, tmp_path: Path):
    finished(done, done.spec(tmp_path / "out"))
    (tmp_path / "link").symlink_to(tmp_path / "out")
    assert adopted(claim_shards(done.spec(tmp_path / "link"))) == SHARDS


def test_two_outputs_of_one_work_folder_are_the_same_corpus_each_with_files_of_its_own(
    done: Analysed, tmp_path: Path
):
    first = finished(done, done.spec(tmp_path / "out"))
    second = claim_shards(done.spec(tmp_path / "second"))
    assert adopted(second) == set()
    write(second)
    finalise(second, done.statistics(), shape_of(mini()))
    assert bytes_of(second.output) == bytes_of(first.output)


def test_a_copy_that_lacks_a_file_or_has_a_damaged_one_writes_those_shards_itself(
    done: Analysed, tmp_path: Path
):
    finished(done, done.spec(tmp_path / "out"))
    copy = Path(shutil.copytree(tmp_path / "out", tmp_path / "copy"))
    (copy / "data" / "train-000000-00.parquet").unlink()
    damaged = copy / "wds" / "train-000001-00.tar"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    (copy / "wds" / "train-000002-00.tar.idx").unlink()
    spec = claim_shards(done.spec(copy))
    assert adopted(spec) == {2}
    assert (copy / "wds" / "train-000002-00.tar.idx").exists()
    assert [spec.work.store.exists(spec.commit_path(shard)) for shard in range(3)] == [
        False,
        False,
        True,
    ]


def test_shards_of_another_corpus_are_not_taken_for_ours(done: Analysed, tmp_path: Path):
    finished(done, done.spec(tmp_path / "out"))
    other = done.spec(tmp_path / "out", rate=0.25)
    assert adopted(other) == set()


def test_what_was_begun_when_the_path_was_part_of_the_key_goes_on_at_that_path(
    done: Analysed, tmp_path: Path
):
    spec = done.spec(tmp_path / "out")
    key = digest({**spec.made_from, "output": str(tmp_path / "out")})
    config = spec.config.model_dump(mode="json", exclude={"runtime"})
    spec.output.replace(CONFIG_PATH, json.dumps({"tokens_key": key, "config": config}).encode())
    again = claim_shards(spec)
    assert (again.key, again.commit_path(1)) == (key, f"commits/{key[:16]}/000001.json")
    finished(done, spec)
    assert CorpusInfo.from_bytes(spec.output.read(INFO_PATH)).tokens_key == key
    shutil.move(tmp_path / "out", tmp_path / "moved")
    with pytest.raises(PlanMismatchError, match="at another path by a version"):
        claim_shards(done.spec(tmp_path / "moved"))


# What differs


def test_another_setting_is_named(done: Analysed, tmp_path: Path):
    claim_shards(done.spec(tmp_path / "out"))
    with pytest.raises(PlanMismatchError) as caught:
        claim_shards(done.spec(tmp_path / "out", licence="MIT", rate=0.25))
    assert str(caught.value).split("\n")[1:3] == [
        "  output.licence: was unknown, is MIT",
        "  routing.rate: was 0.5, is 0.25",
    ]
    assert f"--work {done.work.store.url}" in str(caught.value)


def test_other_videos_are_named_by_the_plan(done: Analysed, tmp_path: Path):
    claim_shards(done.spec(tmp_path / "out"))
    other = analysed(tmp_path / "else", {"z.mp4": video(4, 1)}, format="both")
    with pytest.raises(PlanMismatchError, match=r"plan: was [0-9a-f]{64}, is [0-9a-f]{64}"):
        claim_shards(other.spec(tmp_path / "out", shard_source_bytes=1000))
