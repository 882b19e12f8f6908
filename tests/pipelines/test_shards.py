"""Pass two without Ray: units made by hand in, token shards out."""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import FACTS, TOKENIZER
from work_folders import BROKEN, Analysed, analysed, mask_of, rows_of, video, window, write

from pipelines.errors import ConflictError, IncompleteError, PipelineError
from pipelines.shards import ShardSpec, tokenise_shard
from pipelines.sinks.webdataset import read_samples
from schemas.ids import video_id
from schemas.manifest import ShardCommit
from schemas.tokens import TOKEN_SCHEMA

GRID = (3, 8, 8)
CELLS = 192


LONG = video(1, 20)
VIDEOS = {"a.mp4": LONG, "b/é.mp4": BROKEN, "c.mp4": video(2, 3, 0.4), "d.mp4": video(3, 1)}
COUNTS = {"a.mp4": 20, "c.mp4": 3, "d.mp4": 1}


def digests(spec: ShardSpec) -> dict[str, str]:
    return {
        path: hashlib.sha256(spec.output.read(path)).hexdigest() for path, _ in spec.output.list()
    }


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Analysed:
    return analysed(tmp_path_factory.mktemp("work"), VIDEOS, format="both")


def test_every_window_becomes_one_row(done: Analysed, tmp_path: Path):
    spec = done.spec(tmp_path)
    [commit] = write(spec)
    rows = rows_of(spec)
    assert sorted((row["source"], row["window_index"]) for row in rows) == [
        (uri, index) for uri, count in COUNTS.items() for index in range(count)
    ]
    assert [row["clip_id"] for row in rows] == sorted(row["clip_id"] for row in rows)
    assert (commit.videos, commit.totals.clips, commit.totals.cells) == (3, 24, 24 * CELLS)
    assert commit.totals.tokens == sum(row["num_tokens"] for row in rows)
    assert {row["video_id"] for row in rows} == {video_id(uri) for uri in COUNTS}
    assert {row["tokenizer"] for row in rows} == {TOKENIZER}


def test_a_row_keeps_the_most_informative_codes_of_its_window(done: Analysed, tmp_path: Path):
    spec = done.spec(tmp_path)
    write(spec)
    rows = [row for row in rows_of(spec) if row["source"] == "a.mp4"]
    for row, source in zip(rows, LONG, strict=True):
        kept = mask_of(row)
        assert kept.sum() == row["num_tokens"] == len(row["tokens"])
        assert row["tokens"] == source.codes[kept].tolist()
        assert source.information[kept].min() >= source.information[~kept].max()
        assert row["elbo"] == pytest.approx(source.information.mean(dtype=np.float64), rel=1e-5)
        assert row["start_time_s"] == source.span.start_time_s
        assert row["fps"] == pytest.approx(FACTS.fps)


def test_ties_keep_the_first_positions(tmp_path: Path):
    done = analysed(tmp_path / "work", {"flat.mp4": [window(0.25)]})
    spec = done.spec(tmp_path / "out")
    write(spec)
    [row] = rows_of(spec)
    assert mask_of(row).reshape(-1).tolist() == [True] * 96 + [False] * 96


def test_parquet_and_tar_hold_the_same_rows(done: Analysed, tmp_path: Path):
    spec = done.spec(tmp_path)
    write(spec)
    samples = list(read_samples(spec.output.read("wds/train-000000-00.tar")))
    for row, sample in zip(rows_of(spec), samples, strict=True):
        assert sample["clip_id"] == row["clip_id"]
        assert sample["tokens"].tolist() == row["tokens"]
        assert bytes(sample["mask"]) == row["mask"]
        assert sample["rate_target"] == pytest.approx(row["rate_target"])


def test_every_tar_has_its_energon_index_beside_it(done: Analysed, tmp_path: Path):
    spec = done.spec(tmp_path, format="webdataset")
    [commit] = write(spec)
    assert [file.path for file in commit.files] == ["wds/train-000000-00.tar"]
    assert spec.output.exists("wds/train-000000-00.tar.idx")
    assert not spec.output.exists("data")


def test_the_same_bytes_come_out_again(done: Analysed, tmp_path: Path):
    first, second = done.spec(tmp_path / "1"), done.spec(tmp_path / "2")
    write(first)
    write(second)
    assert digests(first) == digests(second)
    before = digests(first)
    # A late writer of a dead run.
    assert write(first) == write(first)
    assert digests(first) == before


def test_other_bytes_under_the_name_of_a_file_are_a_conflict(done: Analysed, tmp_path: Path):
    spec = done.spec(tmp_path)
    spec.output.publish("data/train-000000-00.parquet", b"somebody else's")
    with pytest.raises(ConflictError, match=r"train-000000-00\.parquet already exists"):
        tokenise_shard(spec, 0)
    assert not spec.work.store.exists(spec.commit_path(0))


def test_each_shard_has_its_own_files_and_its_own_commit(tmp_path: Path):
    done = analysed(tmp_path / "work", VIDEOS, shard_source_bytes=1000)
    spec = done.spec(tmp_path / "out")
    commits = write(spec)
    assert [commit.shard for commit in commits] == [0, 1, 2, 3]
    # Nothing is left of a shard of broken videos but its commit.
    assert [len(commit.files) for commit in commits] == [1, 0, 1, 1]
    assert [commit.videos for commit in commits] == [1, 0, 1, 1]
    for commit in commits:
        path = spec.commit_path(commit.shard)
        assert ShardCommit.from_bytes(spec.work.store.read(path)) == commit


@given(st.integers(1, 20_000))
@settings(max_examples=12)
def test_parts_are_cut_by_bytes_and_hold_every_row_once(file_bytes: int):
    with tempfile.TemporaryDirectory() as folder:
        done = analysed(Path(folder, "work"), VIDEOS, format="both", file_bytes=file_bytes)
        spec = done.spec(Path(folder, "out"))
        [commit] = write(spec)
        parts = [file for file in commit.files if file.format == "parquet"]
        tars = [file for file in commit.files if file.format == "webdataset"]
        assert [file.path for file in parts] == [
            f"data/train-000000-{part:02d}.parquet" for part in range(len(parts))
        ]
        assert [file.clips for file in parts] == [file.clips for file in tars]
        assert len({row["clip_id"] for row in rows_of(spec)}) == 24
        for file in parts:
            # Two bytes a token, the mask and some 256 of the rest of a row.
            assert file.clips == 1 or 2 * file.tokens + file.clips * (24 + 256) <= file_bytes


def test_tokens_of_a_shard_add_up_to_what_its_files_hold(done: Analysed, tmp_path: Path):
    spec = done.spec(tmp_path, file_bytes=2000)
    [commit] = write(spec)
    assert len(commit.files) > 4
    for kind in ("parquet", "webdataset"):
        files = [file for file in commit.files if file.format == kind]
        assert sum(file.tokens for file in files) == commit.totals.tokens
        assert sum(file.clips for file in files) == commit.totals.clips
    for file in commit.files:
        data = spec.output.read(file.path)
        assert (file.bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_the_key_depends_on_all_that_the_files_depend_on(done: Analysed, tmp_path: Path):
    changes: list[dict[str, Any]] = [
        {},
        {"rate": 0.4},
        {"budget": "paper"},
        {"format": "parquet"},
        {"file_bytes": 5000},
        {"parquet_encoding": "dictionary"},
        {"row_group_rows": 7},
        {"split": "val"},
    ]
    keys = [done.spec(tmp_path, **change).key for change in changes]
    assert len(set(keys)) == len(changes)
    assert done.spec(tmp_path).key == keys[0]


def test_the_key_is_the_same_at_any_path_but_each_output_has_its_own_commits(
    done: Analysed, tmp_path: Path
):
    here, there = done.spec(tmp_path), done.spec(tmp_path / "elsewhere")
    assert here.key == there.key
    assert here.commit_path(0) != there.commit_path(0)


def test_the_split_names_the_files(done: Analysed, tmp_path: Path):
    [commit] = write(done.spec(tmp_path, split="val"))
    assert {Path(file.path).name.split(".")[0] for file in commit.files} == {"val-000000-00"}


# What comes from a manifest


def test_extra_columns_arrive_in_parquet_and_tar(tmp_path: Path):
    schema = pa.schema(
        [("label", pa.string()), ("year", pa.int64()), ("score", pa.float64()), ("ok", pa.bool_())]
    )
    extras = {
        "a.mp4": {"label": "é", "year": 1999, "score": 0.1, "ok": True},
        "b.mp4": {"label": None, "year": None, "score": None, "ok": None},
    }
    done = analysed(
        tmp_path / "work",
        {"a.mp4": video(1, 1), "b.mp4": video(2, 1)},
        extras=extras,
        extra_schema=schema,
        format="both",
    )
    spec = done.spec(tmp_path / "out")
    write(spec)
    table = pq.read_table(tmp_path / "out" / "data" / "train-000000-00.parquet")
    assert [*table.schema.names] == [*TOKEN_SCHEMA.names, *schema.names]
    assert [table.schema.field(name).type for name in schema.names] == list(schema.types)
    for row in table.to_pylist():
        assert {name: row[name] for name in schema.names} == extras[row["source"]]
    for sample in read_samples(spec.output.read("wds/train-000000-00.tar")):
        # Nulls are left out of the JSON.
        said = {name: sample[name] for name in schema.names if name in sample}
        assert said == (extras["a.mp4"] if sample["source"] == "a.mp4" else {})


def test_a_tar_is_plain_and_without_dates(done: Analysed, tmp_path: Path):
    spec = done.spec(tmp_path, format="webdataset")
    write(spec)
    with tarfile.open(fileobj=io.BytesIO(spec.output.read("wds/train-000000-00.tar"))) as tar:
        members = tar.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname) for m in members} == {(0, 0, 0, "")}
    assert [m.name for m in members[:3]] == sorted(m.name for m in members[:3])


# What is missing or damaged


def test_a_unit_that_is_gone_or_damaged_stops_its_shard(tmp_path: Path):
    done = analysed(tmp_path / "work", {"a.mp4": video(1, 1)})
    spec = done.spec(tmp_path / "out")
    [(path, _)] = done.work.store.list("units")
    whole = done.work.store.read(path)
    done.work.store.replace(path, whole[:-1])
    with pytest.raises(PipelineError, match="is damaged: sha256"):
        tokenise_shard(spec, 0)
    done.work.store.delete(path)
    with pytest.raises(PipelineError, match="is gone"):
        tokenise_shard(spec, 0)
    assert not spec.work.store.exists(spec.commit_path(0))
    done.work.store.replace(path, whole)
    assert tokenise_shard(spec, 0).totals.clips == 1


def test_an_unfinished_pass_one_gives_no_shards(tmp_path: Path):
    done = analysed(tmp_path / "work", {"a.mp4": video(1, 1)})
    done.work.store.delete_folder("videos")
    with pytest.raises(IncompleteError):
        done.spec(tmp_path / "out")
