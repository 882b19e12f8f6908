"""Manifests: which rows they name, where those lie, and what else rides along."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from named_files import fill, put
from s3_tools import filesystem, make_bucket

from pipelines.config import RunConfig, SourceConfig, StorageConfig
from pipelines.errors import PipelineError
from pipelines.plan import Plan, ensure_plan
from pipelines.source_manifest import read_manifest
from pipelines.sources import Source, SourceObject, open_source, source_url
from pipelines.storage import Store

pytest_plugins = ["s3"]

LOCAL = StorageConfig()


def manifest(folder: Path, kind: str, rows: list[dict[str, object]]) -> Path:
    path = folder / f"list.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, path) if kind == "parquet" else pacsv.write_csv(table, path)
    return path


def opened(path: Path) -> Plan:
    """A plan of it: some manifests are refused by what opens them, some by what plans."""
    work = Store(str(path.parent / "work"))
    return ensure_plan(open_source(str(path), SourceConfig(), LOCAL), RunConfig(),
                       tokenizer="0" * 64, work=work)  # fmt: skip


def objects_of(source: Source) -> dict[str, SourceObject]:
    return {item.uri: item for item in source.objects}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_the_other_columns_of_a_manifest_ride_along(tmp_path: Path, kind: str):
    fill(tmp_path, "a.mp4", "sub/b.mp4", "not-named.mp4")
    rows: list[dict[str, object]] = [
        {"uri": "sub/b.mp4", "label": "cat", "score": 0.5, "year": 1999, "good": True},
        {"uri": "a.mp4", "label": "dög", "score": 1.5, "year": None, "good": False},
    ]
    source = open_source(str(manifest(tmp_path, kind, rows)), SourceConfig(), LOCAL)
    found = objects_of(source)
    assert source.root == str(tmp_path)
    assert found["a.mp4"].extra == {"label": "dög", "score": 1.5, "year": None, "good": False}
    assert found["sub/b.mp4"].extra["year"] == 1999
    assert found["sub/b.mp4"].size == len("sub/b.mp4")
    types = {field.name: str(field.type) for field in source.extra_schema}
    assert types == {"label": "string", "score": "double", "year": "int64", "good": "bool"}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_manifest_of_uris_alone_has_no_extra_columns(tmp_path: Path, kind: str):
    fill(tmp_path, "a.mp4")
    path = manifest(tmp_path, kind, [{"path": "a.mp4"}])
    source = open_source(str(path), SourceConfig(uri_column="path"), LOCAL)
    assert list(source.extra_schema) == []
    assert objects_of(source)["a.mp4"].extra == {}


def test_absolute_paths_become_relative_to_what_they_share(tmp_path: Path):
    fill(tmp_path, "one/a.mp4", "one/sub/b.mp4")
    rows: list[dict[str, object]] = [
        {"uri": str(tmp_path / "one" / "a.mp4")},
        {"uri": str(tmp_path / "one" / "sub" / "b.mp4")},
    ]
    source = open_source(str(manifest(tmp_path, "csv", rows)), SourceConfig(), LOCAL)
    assert source.root == str(tmp_path / "one")
    assert {uri: item.size for uri, item in objects_of(source).items()} == {
        "a.mp4": len("one/a.mp4"),
        "sub/b.mp4": len("one/sub/b.mp4"),
    }


def test_a_listed_video_that_is_missing_stays_in_the_list(tmp_path: Path):
    rows: list[dict[str, object]] = [{"uri": "gone.mp4"}, {"uri": "nul\0.mp4"}]
    source = open_source(str(manifest(tmp_path, "jsonl", rows)), SourceConfig(), LOCAL)
    assert {item.version for item in source.objects} == {"missing"}


@pytest.mark.s3
def test_a_manifest_on_disk_may_name_objects_of_several_buckets(
    tmp_path: Path, s3_endpoint: str, s3_config: StorageConfig
):
    buckets = [make_bucket(s3_endpoint) for _ in range(2)]
    for bucket in buckets:
        put(s3_endpoint, bucket, "in/a.mp4")
    uris = [f"{bucket}/in/a.mp4" for bucket in buckets]
    path = manifest(tmp_path, "csv", [{"uri": uri} for uri in uris])
    source = open_source(str(path), SourceConfig(), s3_config)
    found = objects_of(source)
    assert sorted(found) == sorted(uris)
    assert {item.version for item in found.values()} == {hashlib.md5(b"in/a.mp4").hexdigest()}
    assert [source_url(source.root, uri) for uri in uris] == uris


@pytest.mark.s3
def test_a_manifest_in_a_bucket_names_its_neighbours(
    s3_endpoint: str, bucket: str, s3_config: StorageConfig
):
    put(s3_endpoint, bucket, "in/a.mp4", "in/sub/b.mp4")
    filesystem(s3_endpoint).pipe_file(f"{bucket}/in/list.csv", b"uri,n\nsub/b.mp4,1\na.mp4,2\n")
    source = open_source(f"{bucket}/in/list.csv", SourceConfig(), s3_config)
    assert source.root == f"{bucket}/in"
    assert {uri: item.extra for uri, item in objects_of(source).items()} == {
        "a.mp4": {"n": 2},
        "sub/b.mp4": {"n": 1},
    }
    assert all(
        item.size
        for item in open_source(f"{bucket}/in/list.csv", SourceConfig(), s3_config).objects
    )


def test_text_that_looks_like_a_date_or_a_number_stays_as_it_was_written(tmp_path: Path):
    fill(tmp_path, "007", "2024-01-01")
    text = "uri,day\n007,2024-01-01\n2024-01-01,1999-12-31\n"
    (tmp_path / "list.csv").write_text(text)
    found = objects_of(open_source(str(tmp_path / "list.csv"), SourceConfig(), LOCAL))
    assert found["007"].extra == {"day": "2024-01-01"}
    assert found["2024-01-01"].size == len("2024-01-01")
    rows: list[dict[str, object]] = [{"uri": "2024-01-01", "day": "2024-02-03"}]
    path = manifest(tmp_path, "jsonl", rows)
    found = objects_of(open_source(str(path), SourceConfig(), LOCAL))
    assert found["2024-01-01"].extra == {"day": "2024-02-03"}


def test_nested_columns_become_json_text(tmp_path: Path):
    rows: list[dict[str, object]] = [{"uri": "a.mp4", "tags": ["x", "y"], "box": {"w": 1}}]
    for kind in ("jsonl", "parquet"):
        source = open_source(str(manifest(tmp_path, kind, rows)), SourceConfig(), LOCAL)
        [item] = source.objects
        assert json.loads(item.extra["tags"]) == ["x", "y"]
        assert json.loads(item.extra["box"]) == {"w": 1}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list.csv", "file,label\na.mp4,1\n", "has no column 'uri' .it has file, label"),
        ("list.jsonl", '{"file": "a.mp4"}\n', "has no column 'uri' .it has file"),
        ("list.csv", "uri,n\na.mp4,1\n,2\n", "row 2 has no uri"),
        ("list.jsonl", '{"uri": "a.mp4"}\n{"uri": null}\n', "row 2 has no uri"),
        ("list.csv", "", "cannot be read"),
        ("list.jsonl", "{no json", "cannot be read"),
        ("list.parquet", "no parquet", "cannot be read"),
        ("list.csv", "uri,a,a\na.mp4,1,2\n", "column 'a' comes twice"),
        ("list.csv", "uri,uri\na.mp4,b.mp4\n", "column 'uri' comes twice"),
        ("list.csv", "uri,label\n", "list.csv has no rows"),
        (
            "list.csv",
            "uri,tokens\na.mp4,1\n",
            "list.csv: extra column 'tokens' has the name of one",
        ),
    ],
)
def test_a_manifest_that_is_none_is_named_with_the_cause(
    tmp_path: Path, name: str, text: str, message: str
):
    (tmp_path / name).write_text(text)
    with pytest.raises(PipelineError, match=message):
        opened(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "encoding", "message"),
    [
        ("uri,label\na.mp4,1\n", "utf-16", "list.csv is not UTF-8"),
        ("uri,label\na.mp4,d\u00e9j\u00e0\n", "latin-1", "list.csv: column 'label' is not UTF-8"),
    ],
)
def test_a_manifest_in_another_encoding_is_named(
    tmp_path: Path, text: str, encoding: str, message: str
):
    (tmp_path / "list.csv").write_bytes(text.encode(encoding))
    with pytest.raises(PipelineError, match=message):
        opened(tmp_path / "list.csv")


def test_a_column_of_bytes_is_named(tmp_path: Path):
    path = manifest(tmp_path, "parquet", [{"uri": "a.mp4", "raw": b"\xff\xfe"}])
    with pytest.raises(PipelineError, match="column 'raw' is not UTF-8"):
        opened(path)


def test_numbers_that_a_number_type_would_change_stay_as_they_were_written(tmp_path: Path):
    ids = [12345678901234567890, 12345678901234567891, 1]
    text = ["uri,id,code,share,count\n"]
    text += [f"{n}.mp4,{value},00{n},0.5,{n}\n" for n, value in enumerate(ids)]
    (tmp_path / "list.csv").write_text("".join(text))
    found = objects_of(open_source(str(tmp_path / "list.csv"), SourceConfig(), LOCAL))
    assert [found[f"{n}.mp4"].extra for n in range(3)] == [
        {"id": str(value), "code": f"00{n}", "share": 0.5, "count": n}
        for n, value in enumerate(ids)
    ]
    rows: list[dict[str, object]] = [
        {"uri": f"{n}.mp4", "id": value, "share": n or 0.5} for n, value in enumerate(ids)
    ]
    found = objects_of(open_source(str(manifest(tmp_path, "jsonl", rows)), SourceConfig(), LOCAL))
    assert [found[f"{n}.mp4"].extra for n in range(3)] == [
        {"id": str(value), "share": n or 0.5} for n, value in enumerate(ids)
    ]


WHOLE = st.integers(-(2**70), 2**70).map(str) | st.from_regex(r"[+-]?[0-9]{1,20}", fullmatch=True)


@given(st.lists(WHOLE, min_size=1, max_size=5))
def test_whole_numbers_of_any_size_can_be_told_apart(values: list[str]):
    text = "uri,id\n" + "".join(f"{n}.mp4,{value}\n" for n, value in enumerate(values))
    _, extra = read_manifest(text.encode(), name="list.csv", uri_column="uri")
    read = extra["id"].to_pylist()
    # Either text, letter by letter, or numbers that are these and have no other spelling there.
    assert read == values or read == [int(value) for value in values]


def test_file_urls_are_paths_of_this_machine(tmp_path: Path):
    fill(tmp_path, "one/a.mp4", "one/b.mp4")
    one = tmp_path / "one"
    rows: list[dict[str, object]] = [{"uri": f"file://{one}/a.mp4"}, {"uri": f"file://{one}/b.mp4"}]
    source = open_source(str(manifest(tmp_path, "csv", rows)), SourceConfig(), LOCAL)
    assert source.root == str(one)
    assert set(objects_of(source)) == {"a.mp4", "b.mp4"}
    rows[0] = {"uri": "one/a.mp4"}
    mixed = objects_of(open_source(str(manifest(tmp_path, "csv", rows)), SourceConfig(), LOCAL))
    assert {uri: item.size for uri, item in mixed.items()} == {
        "one/a.mp4": len("one/a.mp4"),
        f"{one}/b.mp4": len("one/b.mp4"),
    }


# What joins a corpus has its types


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_columns_are_read_with_the_types_of_the_corpus_they_are_for(tmp_path: Path, kind: str):
    fill(tmp_path, "a.mp4")
    path = manifest(tmp_path, kind, [{"uri": "a.mp4", "n": 5, "m": 7}])
    types = {"n": "double", "gone": "string"}
    source = open_source(str(path), SourceConfig(), LOCAL, extra_types=types)
    assert {field.name: str(field.type) for field in source.extra_schema} == {
        "n": "double",
        "m": "int64",
    }
    assert objects_of(source)["a.mp4"].extra == {"n": 5.0, "m": 7}


def test_a_number_of_a_csv_is_text_where_the_corpus_has_text(tmp_path: Path):
    fill(tmp_path, "a.mp4")
    (tmp_path / "list.csv").write_text("uri,n\na.mp4,05\n")
    source = open_source(
        str(tmp_path / "list.csv"), SourceConfig(), LOCAL, extra_types={"n": "string"}
    )
    assert objects_of(source)["a.mp4"].extra == {"n": "05"}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_value_that_does_not_fit_the_corpus_is_refused_by_name(tmp_path: Path, kind: str):
    fill(tmp_path, "a.mp4")
    path = manifest(tmp_path, kind, [{"uri": "a.mp4", "n": "x"}])
    with pytest.raises(PipelineError, match=r"manifest .*list\..* cannot be .*n has to be int64"):
        open_source(str(path), SourceConfig(), LOCAL, extra_types={"n": "int64"})


def test_large_whole_numbers_of_json_join_a_column_of_text(tmp_path: Path):
    fill(tmp_path, "a.mp4", "b.mp4")
    path = manifest(tmp_path, "jsonl", [{"uri": "a.mp4", "id": 7}, {"uri": "b.mp4", "id": 2**70}])
    for types in ({}, {"id": "string"}):
        found = objects_of(open_source(str(path), SourceConfig(), LOCAL, extra_types=types))
        assert [found[uri].extra["id"] for uri in ("a.mp4", "b.mp4")] == ["7", str(2**70)]


@pytest.mark.parametrize(("kind", "n"), [("int64", "007"), ("double", str(2**60))])
def test_a_number_that_would_lose_digits_is_no_number_of_the_corpus(
    tmp_path: Path, kind: str, n: str
):
    fill(tmp_path, "a.mp4")
    (tmp_path / "list.csv").write_text(f"uri,n\na.mp4,{n}\n")
    with pytest.raises(PipelineError, match=f"list.csv: column 'n' has to be {kind}, which does"):
        open_source(str(tmp_path / "list.csv"), SourceConfig(), LOCAL, extra_types={"n": kind})
