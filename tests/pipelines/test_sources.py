"""What is listed, under which URI, in a real folder and on a real S3 server. Nothing is opened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from named_files import fill, put
from s3_tools import Answer, Forward, filesystem, make_bucket, proxy

from pipelines.config import SourceConfig, StorageConfig
from pipelines.errors import PipelineError, StorageError
from pipelines.sources import SourceObject, open_source, source_url
from schemas.ids import unquote_path

pytest_plugins = ["s3"]

LOCAL = StorageConfig()


def listed(
    url: str | Path,
    storage: StorageConfig = LOCAL,
    *,
    without: tuple[str, ...] = (),
    **source: object,
) -> list[str]:
    """URIs of a source, sorted."""
    config = SourceConfig.model_validate(source)
    found = open_source(str(url), config, storage, exclude_roots=without)
    return sorted(item.uri for item in found.objects)


# Folders and prefixes


def test_a_folder_is_listed_with_all_folders_in_it(tmp_path: Path):
    fill(tmp_path, "a.mp4", "deep/b.mp4", "deep/er/c d.mp4")
    assert listed(tmp_path) == ["a.mp4", "deep/b.mp4", "deep/er/c d.mp4"]
    assert listed(f"{tmp_path}/") == listed(tmp_path)
    assert listed(f"file://{tmp_path}") == listed(tmp_path)


@pytest.mark.s3
def test_a_prefix_is_listed_and_its_neighbours_are_not(
    s3_endpoint: str, bucket: str, s3_config: StorageConfig
):
    put(s3_endpoint, bucket, "in/a.mp4", "in/deep/b.mp4", "inside/c.mp4", "d.mp4")
    assert listed(f"{bucket}/in", s3_config) == ["a.mp4", "deep/b.mp4"]
    assert listed(f"{bucket}/in/", s3_config) == ["a.mp4", "deep/b.mp4"]
    assert len(listed(bucket, s3_config)) == 4


@pytest.mark.s3
def test_a_copy_on_disk_and_in_a_bucket_have_the_same_uris(
    tmp_path: Path, s3_endpoint: str, bucket: str, s3_config: StorageConfig
):
    names = ("a.mp4", "é/100%.mp4", "x y/日本.mp4", "q?.mp4", "br[1].mp4", "plus+and&.mp4")
    fill(tmp_path, *names)
    put(s3_endpoint, bucket, *names)
    assert listed(tmp_path) == listed(bucket, s3_config)
    for uri in listed(bucket, s3_config):
        assert filesystem(s3_endpoint).exists(source_url(bucket, uri))
        assert Path(source_url(str(tmp_path), uri)).exists()


@pytest.mark.s3
def test_keys_with_empty_parts_and_folder_markers_are_no_trouble(
    s3_endpoint: str, bucket: str, s3_config: StorageConfig
):
    put(s3_endpoint, bucket, "in//double.mp4", "in/sub/a.mp4", "in/empty/", "in/")
    assert listed(f"{bucket}/in", s3_config) == ["%2Fdouble.mp4", "sub/a.mp4"]


@pytest.mark.s3
@pytest.mark.parametrize("name", ["/etc/v.mp4", "//v.mp4", "http://web/v.mp4", "file:///etc/v.mp4"])
def test_a_key_that_looks_like_a_place_elsewhere_is_looked_for_in_its_bucket(
    s3_endpoint: str, bucket: str, s3_config: StorageConfig, name: str
):
    put(s3_endpoint, bucket, f"in/{name}")
    [uri] = listed(f"{bucket}/in", s3_config)
    assert source_url(f"{bucket}/in", uri) == f"{bucket}/in/{name}"


def test_hidden_files_and_folders_are_left_out(tmp_path: Path):
    fill(tmp_path, "a.mp4", ".hidden.mp4", ".git/b.mp4", "sub/.DS_Store")
    assert listed(tmp_path) == ["a.mp4"]


@pytest.mark.s3
def test_hidden_keys_are_left_out(s3_endpoint: str, bucket: str, s3_config: StorageConfig):
    put(s3_endpoint, bucket, "a.mp4", ".hidden.mp4", ".git/b.mp4", "sub/.DS_Store")
    assert listed(bucket, s3_config) == ["a.mp4"]


def test_a_loop_of_links_ends_and_linked_folders_are_followed(tmp_path: Path):
    source = fill(tmp_path / "in", "a.mp4", "sub/b.mp4")
    fill(tmp_path / "elsewhere", "c.mp4")
    (source / "sub" / "up").symlink_to(source)
    (source / "self").symlink_to("self")
    (source / "linked").symlink_to(tmp_path / "elsewhere")
    assert listed(source) == ["a.mp4", "linked/c.mp4", "self", "sub/b.mp4"]


def test_a_dangling_link_is_listed_as_missing(tmp_path: Path):
    (tmp_path / "gone.mp4").symlink_to("nowhere.mp4")
    [item] = open_source(str(tmp_path), SourceConfig(), LOCAL).objects
    assert item == SourceObject(uri="gone.mp4", size=0, version="missing")


def test_names_that_are_not_utf8_are_listed_and_found_again(tmp_path: Path):
    raw = b"caf\xe9 \xff.mp4"
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + raw)).write_bytes(b"12345")
    [item] = open_source(str(tmp_path), SourceConfig(), LOCAL).objects
    assert item.uri == "caf%E9 %FF.mp4"
    assert item.size == 5
    assert os.fsencode(source_url(str(tmp_path), item.uri)).endswith(raw)
    assert os.fsencode(unquote_path(item.uri)) == raw


def test_an_output_inside_the_input_is_not_listed(tmp_path: Path):
    fill(tmp_path, "a.mp4", "out/data/x.parquet", "work/u.parquet", "outer/b.mp4")
    without = (str(tmp_path / "out"), str(tmp_path / "work"))
    assert listed(tmp_path, without=without) == ["a.mp4", "outer/b.mp4"]


def test_an_output_inside_the_input_is_known_through_links(tmp_path: Path):
    fill(tmp_path / "real", "a.mp4", "out/x.parquet")
    (tmp_path / "link").symlink_to("real")
    assert listed(tmp_path / "link", without=(str(tmp_path / "real" / "out"),)) == ["a.mp4"]
    assert listed(tmp_path / "real", without=(str(tmp_path / "link" / "out"),)) == ["a.mp4"]


@pytest.mark.s3
def test_an_output_inside_the_input_bucket_is_not_listed(
    s3_endpoint: str, bucket: str, s3_config: StorageConfig
):
    put(s3_endpoint, bucket, "a.mp4", "out/x.parquet", "outer/b.mp4")
    assert listed(bucket, s3_config, without=(f"{bucket}/out",)) == ["a.mp4", "outer/b.mp4"]


@pytest.mark.s3
def test_a_prefix_that_may_not_be_listed_is_an_error_and_not_an_omission(s3_endpoint: str):
    bucket = make_bucket(s3_endpoint)
    put(s3_endpoint, bucket, "a.mp4", "secret/b.mp4")
    denied = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"

    def answer(method: str, path: str, headers: dict[str, str], forward: Forward) -> Answer:
        del method
        if "list-type" in path and "max-keys=1" not in path.lower():
            return 403, {"Content-Type": "application/xml"}, denied
        return forward(headers)

    with (
        proxy(s3_endpoint, answer) as url,
        pytest.raises(PipelineError, match=f"cannot be listed: {bucket}: Access Denied"),
    ):
        listed(bucket, StorageConfig(endpoint_url=url))


@pytest.mark.parametrize("url", ["/nowhere/at/all", "nowhere", "/nowhere/x.csv"])
def test_an_input_that_does_not_exist_is_named(url: str):
    with pytest.raises(PipelineError, match=f"input {url} does not exist"):
        listed(url)


@pytest.mark.s3
def test_a_prefix_or_bucket_that_does_not_exist_is_named(bucket: str, s3_config: StorageConfig):
    for url in (f"{bucket}/nothing", "s3://no-such-bucket-here"):
        with pytest.raises(PipelineError, match=f"input {url} does not exist"):
            listed(url, s3_config)


@pytest.mark.s3
def test_a_client_that_cannot_even_begin_is_a_sentence(
    s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    config = StorageConfig(endpoint_url=s3_endpoint)
    with pytest.raises(StorageError, match="cannot be reached: Unable to locate credentials"):
        listed("s3://bucket/prefix", config)
    with pytest.raises(StorageError, match=r"profile \(nobody\) could not be found"):
        listed("s3://bucket/prefix", config.model_copy(update={"profile": "nobody"}))


# One file, globs, patterns


def test_one_file_is_a_source_of_its_own(tmp_path: Path):
    fill(tmp_path, "a.mp4", "b.mp4")
    source = open_source(str(tmp_path / "a.mp4"), SourceConfig(), LOCAL)
    assert source.root == str(tmp_path)
    assert [(item.uri, item.size) for item in source.objects] == [("a.mp4", 5)]


@pytest.mark.s3
def test_one_object_is_a_source_of_its_own(s3_endpoint: str, bucket: str, s3_config: StorageConfig):
    put(s3_endpoint, bucket, "in/a.mp4", "in/b.mp4")
    source = open_source(f"{bucket}/in/a.mp4", SourceConfig(), s3_config)
    assert source.root == f"{bucket}/in"
    assert [item.uri for item in source.objects] == ["a.mp4"]


GLOBBED = ("a1.mp4", "a2.mp4", "b1.mkv", "sub/a3.mp4", "sub/deep/a4.mp4", "other/a5.mp4")


@pytest.mark.parametrize(
    ("glob", "root", "expected"),
    [
        ("*.mp4", "", ["a1.mp4", "a2.mp4"]),
        ("a?.mp4", "", ["a1.mp4", "a2.mp4"]),
        ("[ab]1.*", "", ["a1.mp4", "b1.mkv"]),
        ("**/*.mp4", "", sorted(name for name in GLOBBED if name.endswith(".mp4"))),
        ("sub/*.mp4", "/sub", ["a3.mp4"]),
        ("sub/**", "/sub", ["a3.mp4", "deep/a4.mp4"]),
        ("*/a*.mp4", "", ["other/a5.mp4", "sub/a3.mp4"]),
        ("nothing*", "", []),
    ],
)
def test_a_glob_selects_as_a_shell_does(tmp_path: Path, glob: str, root: str, expected: list[str]):
    fill(tmp_path, *GLOBBED)
    source = open_source(f"{tmp_path}/{glob}", SourceConfig(), LOCAL)
    assert source.root == f"{tmp_path}{root}"
    assert sorted(item.uri for item in source.objects) == expected


@pytest.mark.s3
def test_a_glob_selects_the_same_in_a_bucket(
    tmp_path: Path, s3_endpoint: str, bucket: str, s3_config: StorageConfig
):
    fill(tmp_path, *GLOBBED)
    put(s3_endpoint, bucket, *GLOBBED)
    for glob in ("*.mp4", "**/a*.mp4", "sub/*", "*/a[35].mp4"):
        assert listed(f"{bucket}/{glob}", s3_config) == listed(f"{tmp_path}/{glob}")


def test_a_relative_glob_starts_at_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fill(tmp_path, *GLOBBED)
    monkeypatch.chdir(tmp_path)
    assert listed("*.mp4") == ["a1.mp4", "a2.mp4"]


def test_a_file_or_folder_of_that_literal_name_wins_over_a_glob(tmp_path: Path):
    fill(tmp_path, "take [1].mp4", "take 1.mp4", "what?/a.mp4", "whats/b.mp4", "st*r/c.mp4")
    assert listed(tmp_path / "take [1].mp4") == ["take [1].mp4"]
    assert listed(tmp_path / "what?") == ["a.mp4"]
    assert listed(tmp_path / "st*r") == ["c.mp4"]


@pytest.mark.s3
def test_a_key_or_prefix_of_that_literal_name_wins_over_a_glob(
    s3_endpoint: str, bucket: str, s3_config: StorageConfig
):
    put(s3_endpoint, bucket, "take [1].mp4", "take 1.mp4", "what?/a.mp4", "whats/b.mp4")
    assert listed(f"{bucket}/take [1].mp4", s3_config) == ["take [1].mp4"]
    assert listed(f"{bucket}/what?", s3_config) == ["a.mp4"]


def test_patterns_include_and_exclude(tmp_path: Path):
    fill(tmp_path, *GLOBBED)
    assert listed(tmp_path, include=["*.mkv"]) == ["b1.mkv"]
    assert listed(tmp_path, include=["a?.mp4"], exclude=["sub/**"]) == [
        "a1.mp4",
        "a2.mp4",
        "other/a5.mp4",
    ]
    assert listed(tmp_path, include=["sub/*"]) == ["sub/a3.mp4"]
    assert listed(tmp_path, include=["/*.mp4"]) == ["a1.mp4", "a2.mp4"]
    assert listed(tmp_path / "*.mp4", exclude=["a1*"]) == ["a2.mp4"]
    assert listed(tmp_path / "**", include=["*.mkv"]) == ["b1.mkv"]


def test_patterns_are_case_sensitive(tmp_path: Path):
    fill(tmp_path, "a.mp4", "B.MP4")
    assert listed(tmp_path, include=["*.mp4"]) == ["a.mp4"]
