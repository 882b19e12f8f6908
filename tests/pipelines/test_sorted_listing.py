"""A listing comes out sorted however it came in, and takes memory for a part of it at most."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import PipelineError
from pipelines.sorted_listing import SortedListing
from pipelines.sources import SourceObject

uris = st.lists(st.text(st.sampled_from("ab/é. 😀"), min_size=1, max_size=4), unique=True)


def objects(uris: Iterable[str]) -> Iterable[SourceObject]:
    for size, uri in enumerate(uris):
        yield SourceObject(
            uri=uri, size=size, version=f"v{size}", extra={"n": size} if size else {}
        )


def listing_of(uris: Iterable[str], buffer: int) -> SortedListing:
    return SortedListing(objects(uris), extra=lambda extra: str(extra["n"]), buffer=buffer)


@settings(deadline=None, max_examples=50)
@given(uris, st.integers(1, 8))
def test_every_object_comes_out_once_in_order_as_often_as_asked(uris: list[str], buffer: int):
    expected = [
        (uri, size, f"v{size}", str(size) if size else None)
        for size, uri in sorted(enumerate(uris), key=lambda pair: pair[1])
    ]
    with listing_of(uris, buffer) as listing:
        assert list(listing) == expected
        assert list(listing) == expected


@pytest.mark.parametrize("buffer", [2, 3, 100])
@pytest.mark.parametrize("uris", [["a", "b", "b"], ["b", "a", "c", "d", "b"]])
def test_a_uri_that_comes_twice_is_named_in_one_run_or_in_two(uris: list[str], buffer: int):
    with (
        listing_of(uris, buffer) as listing,
        pytest.raises(PipelineError, match="the input lists b more than once"),
    ):
        list(listing)


def runs(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*.run")]


def test_what_comes_in_order_is_one_run_and_little_of_it_touches_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names = [f"{index:03d}" for index in range(100)]
    with listing_of(names, buffer=101):
        assert runs(tmp_path) == []
    with listing_of(names, buffer=10):
        assert len(runs(tmp_path)) == 1
    with listing_of(reversed(names), buffer=10):
        assert len(runs(tmp_path)) == 10
    assert list(tmp_path.iterdir()) == []


def test_a_listing_that_fails_half_way_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def broken() -> Iterable[SourceObject]:
        yield from objects(["a", "b", "c"])
        raise PipelineError("the bucket is gone")

    with pytest.raises(PipelineError, match="is gone"):
        SortedListing(broken(), extra=str, buffer=2)
    assert list(tmp_path.iterdir()) == []
