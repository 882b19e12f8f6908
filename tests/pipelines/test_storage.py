"""The one write everything is built on, in a real folder and on a real S3 server."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines.config import StorageConfig
from pipelines.errors import ConflictError, StorageError
from pipelines.storage import Store, is_local, storage_options

pytest_plugins = ["s3"]


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return Store(str(tmp_path / "root"))
    bucket, config = request.getfixturevalue("bucket"), request.getfixturevalue("s3_config")
    return Store(f"{bucket}/root", config)


def test_what_was_published_can_be_read_and_is_there(store: Store):
    assert not store.exists("a/b.bin")
    store.publish("a/b.bin", b"\x00\xff" * 1000)
    assert store.exists("a/b.bin")
    assert store.read("a/b.bin") == b"\x00\xff" * 1000


def test_reading_what_is_not_there_is_file_not_found(store: Store):
    with pytest.raises(FileNotFoundError):
        store.read("nothing")


def test_publishing_the_same_bytes_twice_is_success(store: Store):
    store.publish("x", b"same")
    store.publish("x", b"same")
    assert store.read("x") == b"same"


def test_publishing_other_bytes_is_a_conflict_and_the_first_stay(store: Store):
    store.publish("x", b"first")
    with pytest.raises(ConflictError, match="x already exists with other bytes"):
        store.publish("x", b"second")
    assert store.read("x") == b"first"


def test_an_empty_object_takes_its_name(store: Store):
    assert store.create("empty", b"")
    assert not store.create("empty", b"more")
    assert store.read("empty") == b""


def test_replacing_overwrites(store: Store):
    store.replace("x", b"first")
    store.replace("x", b"second")
    assert store.read("x") == b"second"
    assert list(store.list()) == [("x", 6)]


def test_deleting_twice_is_no_error(store: Store):
    store.publish("x", b"1")
    store.delete("x")
    store.delete("x")
    assert not store.exists("x")
    assert store.create("x", b"2")


def test_a_listing_gives_paths_and_sizes_in_path_order_within_a_folder(store: Store):
    for path in ("b", "a", "deep/z", "deep/y", "deep/er/x", "é 100%"):
        store.publish(path, path.encode())
    found = list(store.list())
    assert sorted(found) == sorted(
        (path, len(path.encode())) for path in ("a", "b", "deep/er/x", "deep/y", "deep/z", "é 100%")
    )
    folders: dict[str, list[str]] = {}
    for path, _ in found:
        folders.setdefault(path.rpartition("/")[0], []).append(path)
    assert all(paths == sorted(paths) for paths in folders.values())


def test_a_listing_below_a_folder_leaves_out_its_neighbours(store: Store):
    for path in ("units/1", "units/2", "units-old/3", "unit"):
        store.publish(path, b".")
    assert [path for path, _ in store.list("units")] == ["units/1", "units/2"]


def test_a_folder_that_is_not_there_lists_nothing(store: Store):
    assert list(store.list()) == []
    assert list(store.list("nowhere")) == []


def test_deleting_a_folder_deletes_all_of_it_and_nothing_else(store: Store):
    for path in ("gone/a", "gone/deep/b", "gone-not/c", "d"):
        store.publish(path, b".")
    store.delete_folder("gone")
    store.delete_folder("gone")
    assert sorted(path for path, _ in store.list()) == ["d", "gone-not/c"]


def test_what_lies_right_below_a_folder_is_told_apart(store: Store):
    for path in ("units/000001/b", "units/000000/a", "units/loose", "units/000001/c", "other/x"):
        store.publish(path, b"1")
    assert store.entries("units") == (["000000", "000001"], ["loose"])
    assert store.entries("nothing") == ([], [])


def test_some_objects_are_deleted_together_and_missing_ones_do_not_matter(store: Store):
    for path in ("a/1", "a/2", "a/3"):
        store.publish(path, b"1")
    store.delete_all(iter(["a/1", "a/3", "a/none"]))
    store.delete_all([])
    assert [path for path, _ in store.list()] == ["a/2"]


def test_an_open_object_is_read_at_any_place(store: Store):
    store.publish("x", bytes(range(100)))
    with store.open("x") as file:
        file.seek(90)
        assert file.read(5) == bytes(range(90, 95))
        file.seek(-3, os.SEEK_END)
        assert file.read() == bytes(range(97, 100))
    with pytest.raises(FileNotFoundError):
        store.open("nothing")


@pytest.mark.s3
def test_a_listing_of_several_pages_is_whole_and_in_order(
    bucket: str, s3_config: StorageConfig, monkeypatch: pytest.MonkeyPatch
):
    store = Store(f"{bucket}/pages", s3_config)
    paths = [f"{folder}/{index}" for folder in "ba" for index in range(4)]
    for path in paths:
        store.publish(path, b"1")
    ask = store.filesystem.call_s3
    pages: list[int] = []

    def by_threes(method: str, **options: object) -> dict[str, list[object]]:
        page = ask(method, MaxKeys=3, **options)
        pages.append(len(page["Contents"]))
        return page

    monkeypatch.setattr(store.filesystem, "call_s3", by_threes)
    assert [path for path, _ in store.list()] == sorted(paths)
    assert pages == [3, 3, 2]


def test_a_child_is_rooted_at_a_folder(store: Store):
    child = store.child("_work")
    child.publish("plan.json", b"{}")
    assert store.read("_work/plan.json") == b"{}"
    assert [path for path, _ in child.list()] == ["plan.json"]


def test_a_store_survives_pickling(store: Store):
    store.publish("x", b"1")
    again = pickle.loads(pickle.dumps(store))
    assert again.read("x") == b"1"
    assert again.config == store.config


def test_of_many_threads_that_create_one_name_one_wins(store: Store):
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda i: store.create("name", b"%d" % i), range(16)))
    assert won.count(True) == 1
    assert store.read("name") == b"%d" % won.index(True)


def _race(store: Store, index: int, start: object, results: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    won = [store.create(f"name-{n}", b"%d" % index) for n in range(20)]
    results.put((index, won))  # type: ignore[attr-defined]


def test_of_many_processes_that_create_one_name_one_wins(store: Store):
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(3), context.Queue()
    racers = [
        context.Process(target=_race, args=(store, index, start, results)) for index in range(3)
    ]
    for racer in racers:
        racer.start()
    won = dict(results.get(timeout=60) for _ in racers)
    for racer in racers:
        racer.join()
    for n in range(20):
        winners = [index for index in won if won[index][n]]
        assert len(winners) == 1
        assert store.read(f"name-{n}") == b"%d" % winners[0]


_WRITER = """
import pickle, sys
from pipelines.storage import Store
store = pickle.loads(bytes.fromhex(sys.argv[1]))
store.exists("warm-up")
print("ready", flush=True)
for index in range(1000):
    store.publish(f"object-{index}", bytes([index % 251]) * (24 << 20))
    print(index, flush=True)
"""


def test_a_writer_killed_in_the_middle_leaves_whole_objects_or_nothing(store: Store):
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, pickle.dumps(store).hex()],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    assert writer.stdout.readline() == "0\n"
    # 24 MiB take a few ten milliseconds: the signal hits the middle of one of them.
    time.sleep(0.03)
    os.kill(writer.pid, signal.SIGKILL)
    printed = writer.stdout.read().split()
    writer.wait()
    writer.stdout.close()
    found = dict(store.list())
    assert len(found) in (len(printed) + 1, len(printed) + 2)
    for index in range(len(found)):
        assert store.read(f"object-{index}") == bytes([index % 251]) * (24 << 20)
    for index in range(len(found) + 1):
        # Whoever comes next finishes what was begun.
        store.publish(f"object-{index}", bytes([index % 251]) * (24 << 20))


def test_a_half_written_temporary_file_is_not_listed(tmp_path: Path):
    store = Store(str(tmp_path))
    store.publish("data/part", b"whole")
    (tmp_path / "data" / ".tmp-0123456789abcdef").write_bytes(b"hal")
    assert list(store.list()) == [("data/part", 5)]
    store.delete_folder("data")
    assert not (tmp_path / "data").exists()


def test_a_write_leaves_no_temporary_file_behind(tmp_path: Path):
    store = Store(str(tmp_path))
    store.create("x", b"1")
    store.create("x", b"2")
    store.replace("x", b"3")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("write", ["create", "publish", "replace"])
def test_a_write_that_finds_no_room_names_its_file_and_leaves_nothing(tmp_path: Path, write: str):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # As on a full disk, the error comes from an open file, which does not name it.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=rf"too large: '{tmp_path}/data/x'"):
            getattr(Store(str(tmp_path)), write)("data/x", bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "data").iterdir()) == []


def test_a_store_that_honours_conditions_passes_and_is_left_as_it_was(store: Store):
    store.check_conditional_writes()
    assert list(store.list()) == []


@pytest.mark.parametrize("below", ["", "/_work"])
def test_a_root_that_is_a_file_is_called_one(tmp_path: Path, below: str):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot write to .*file.*Not a directory"):
        Store(f"{tmp_path}/file{below}").check_conditional_writes()


def test_a_folder_that_cannot_be_made_is_named():
    with pytest.raises(StorageError, match="cannot write to /proc/nowhere"):
        Store("/proc/nowhere").check_conditional_writes()


@pytest.mark.parametrize(
    ("url", "local"),
    [("/a", True), ("a/b", True), ("file:///a", True), ("s3://b/a", False), ("gs://b", False)],
)
def test_a_url_without_scheme_is_local(url: str, local: bool):
    assert is_local(url) is local


def test_a_relative_root_and_a_file_url_become_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert Store("out").url == str(tmp_path / "out")
    assert Store(f"file://{tmp_path}/out/").url == str(tmp_path / "out")


def test_a_root_that_is_a_link_keeps_its_name(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    store = Store(str(tmp_path / "link"))
    store.publish("x", b"1")
    assert store.full("x") == str(tmp_path / "link" / "x")
    assert (tmp_path / "real" / "x").read_bytes() == b"1"


def test_options_hold_addresses_and_names_but_never_a_secret(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-tell")
    config = StorageConfig(endpoint_url="http://127.0.0.1:1", region="eu-west-1", profile="me")
    options = storage_options("s3://bucket/x", config)
    assert options["client_kwargs"] == {
        "endpoint_url": "http://127.0.0.1:1",
        "region_name": "eu-west-1",
    }
    assert options["profile"] == "me"
    assert "do-not-tell" not in repr(options)
    assert storage_options("/local", config) == {}
    assert storage_options("s3://b", StorageConfig(anonymous=True))["anon"] is True
