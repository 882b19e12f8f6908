"""What a run leaves behind as it goes, and what a resume finds."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from s3_tools import ignores_conditions, loses_first_answers, proxy
from work_folders import analysed, window

from pipelines.config import StorageConfig
from pipelines.errors import PipelineError, PlanMismatchError
from pipelines.storage import Store
from pipelines.work import WorkFolder
from schemas.ids import video_id
from schemas.units import decode_unit

pytest_plugins = ["s3"]


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def work(request: pytest.FixtureRequest, tmp_path: Path) -> WorkFolder:
    if request.param == "local":
        store = Store(str(tmp_path / "work"))
    else:
        store = Store(request.getfixturevalue("bucket"), request.getfixturevalue("s3_config"))
    return WorkFolder(store=store, analysis_key="a" * 64)


def test_stored_units_are_found_for_this_version_and_key_alone(work: WorkFolder):
    video, other = video_id("a.mp4"), video_id("b.mp4")
    for index in (0, 2):
        work.store.publish(work.unit_path(video, "v1", index, block=3), b"unit")
    work.store.publish(work.unit_path(video, "v2", 1, block=3), b"of another source object")
    work.store.publish(work.unit_path(other, "v1", 5, block=4), b"of another block")
    elsewhere = WorkFolder(store=work.store, analysis_key="b" * 64)
    work.store.publish(elsewhere.unit_path(video, "v1", 3, block=3), b"of another tokenizer")
    leftovers = work.leftover_units([2, 3])
    assert work.stored_units(leftovers, video, "v1") == [0, 2]
    assert work.stored_units(leftovers, video, "v3") == []
    assert elsewhere.stored_units(leftovers, video, "v1") == [3]
    assert set(leftovers) == {video}


def test_a_unit_is_read_back_as_it_was_stored(tmp_path: Path):
    windows = [window(0.1 * index, index=index) for index in range(20)]
    done = analysed(tmp_path, {"a.mp4": windows})
    receipt = done.receipt("a.mp4")
    read = [w for entry in receipt.units for w in decode_unit(done.work.read_unit(entry))]
    assert [w.span for w in read] == [w.span for w in windows]


def test_a_unit_that_is_gone_or_damaged_is_named(tmp_path: Path):
    done = analysed(tmp_path, {"a.mp4": [window(0.1)]})
    [entry] = done.receipt("a.mp4").units
    done.work.store.replace(entry.path, b"other bytes")
    with pytest.raises(PipelineError, match=rf"{entry.path} is damaged: sha256"):
        done.work.read_unit(entry)
    done.work.store.delete(entry.path)
    with pytest.raises(PipelineError, match=rf"{entry.path} is gone"):
        done.work.read_unit(entry)


def test_starts_are_counted_up_to_the_limit(work: WorkFolder):
    numbers = [work.claim("video", run_id="run", limit=3) for _ in range(5)]
    assert numbers == [1, 2, 3, 4, 4]
    assert work.claim("another", run_id="run", limit=3) == 1


@pytest.mark.s3
def test_starts_are_counted_where_a_name_can_be_taken_twice(s3_endpoint: str, bucket: str):
    with proxy(s3_endpoint, ignores_conditions) as url:
        store = Store(bucket, StorageConfig(endpoint_url=url))
        work = WorkFolder(store=store, analysis_key="a" * 64, single_writer=True)
        assert [work.claim("video", run_id="run", limit=3) for _ in range(5)] == [1, 2, 3, 4, 4]


@pytest.mark.s3
def test_a_start_whose_answer_is_lost_counts_once(s3_endpoint: str, bucket: str):
    with proxy(s3_endpoint, loses_first_answers()) as url:
        work = WorkFolder(store=Store(bucket, StorageConfig(endpoint_url=url)), analysis_key="a")
        assert [work.claim("video", run_id="run", limit=3) for _ in range(5)] == [1, 2, 3, 4, 4]


def test_a_start_that_said_nothing_has_said_nothing(work: WorkFolder):
    assert work.claim("shard", run_id="run", limit=3) == 1
    assert work.noted("shard", run_id="run", start=1) == ""
    work.note("shard", run_id="run", start=1, text="reading a.mp4")
    assert work.noted("shard", run_id="run", start=1) == "reading a.mp4"
    assert work.claim("shard", run_id="run", limit=3) == 2


def test_starts_of_another_driver_are_not_held_against_a_video(work: WorkFolder):
    assert [work.claim("video", run_id="first", limit=1) for _ in range(2)] == [1, 2]
    assert work.claim("video", run_id="second", limit=1) == 1


def test_starts_of_a_finished_block_are_forgotten_together(work: WorkFolder):
    here, there = (work.start_name(folder, "video") for folder in ("000007", "000008"))
    for name in (here, there):
        assert [work.claim(name, run_id="run", limit=3) for _ in range(2)] == [1, 2]
    work.forget_starts(7)
    assert [work.claim(name, run_id="run", limit=3) for name in (here, there)] == [1, 3]


def test_no_start_is_counted_twice(work: WorkFolder):
    gate = threading.Barrier(6)

    def claim(_: int) -> int:
        gate.wait()
        return work.claim("video", run_id="run", limit=10)

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(claim, range(6))) == [1, 2, 3, 4, 5, 6]


def test_going_on_in_the_same_way_is_allowed(work: WorkFolder):
    document = {"device": "cpu", "dtype": "float32"}
    work.ensure_analysis(document)
    work.ensure_analysis(dict(reversed(document.items())))


def test_going_on_in_another_way_names_the_difference(work: WorkFolder):
    work.ensure_analysis({"device": "cuda", "batch_size": 8, "torch": "2.9"})
    with pytest.raises(PlanMismatchError) as caught:
        work.ensure_analysis({"device": "cpu", "cpu_threads": 2, "torch": "2.9"})
    message = str(caught.value)
    assert "device: was cuda, is cpu" in message
    assert "batch_size: was 8, is None" in message
    assert "cpu_threads: was None, is 2" in message
    assert "torch" not in message


def test_a_work_folder_in_a_bucket_is_pickled_without_its_connection():
    import pickle

    store = Store("s3://bucket/work", StorageConfig(endpoint_url="http://127.0.0.1:9"))
    work = WorkFolder(store=store, analysis_key="a")
    assert pickle.loads(pickle.dumps(work)).store.url == "s3://bucket/work"
