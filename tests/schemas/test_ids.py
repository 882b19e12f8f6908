from __future__ import annotations

import hashlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import paths

from schemas.ids import clip_id, digest, quote_path, unit_id, unquote_path, video_id


@given(paths)
def test_any_file_name_survives_quoting(name: bytes):
    text = quote_path(name)
    text.encode("utf-8")  # holds no surrogates: every store and table can hold it
    assert not any(ord(character) < 0x20 or ord(character) == 0x7F for character in text)
    assert os.fsencode(unquote_path(text)) == name


@given(paths, paths)
def test_different_names_get_different_texts(first: bytes, second: bytes):
    assert (quote_path(first) == quote_path(second)) == (first == second)


@given(paths)
def test_bytes_and_their_fsdecoded_text_quote_alike(name: bytes):
    assert quote_path(name) == quote_path(os.fsdecode(name))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain/ünïcode 日本.mp4", "plain/ünïcode 日本.mp4"),
        ("100%.mp4", "100%25.mp4"),
        ("a\nb\x7f", "a%0Ab%7F"),
        (b"caf\xe9.mp4", "caf%E9.mp4"),
        ("e\u0301", "e\u0301"),
    ],
)
def test_only_what_must_be_quoted_is(name: str | bytes, text: str):
    assert quote_path(name) == text


@pytest.mark.parametrize("text", ["50% off.mp4", "x%4", "%zz"])
def test_unquoting_refuses_a_stray_percent(text: str):
    with pytest.raises(ValueError, match="two hex digits"):
        unquote_path(text)


def test_quoting_refuses_a_surrogate_that_is_no_byte():
    with pytest.raises(ValueError, match="stands for no byte"):
        quote_path("\ud800")


def test_a_video_id_is_the_head_of_the_sha256_of_its_uri():
    uri = "a/ü.mp4"
    assert video_id(uri) == hashlib.sha256(uri.encode()).hexdigest()[:32]


@given(st.integers(0, 999_999), st.integers(0, 999_999))
def test_clip_ids_sort_like_their_windows_and_hold_no_dot(first: int, second: int):
    left, right = clip_id("0" * 32, first), clip_id("0" * 32, second)
    assert (left < right) == (first < second)
    assert "." not in left


@pytest.mark.parametrize("index", [-1, 10**6])
def test_an_index_that_would_break_the_order_is_refused(index: int):
    with pytest.raises(ValueError, match=str(index)):
        clip_id("0" * 32, index)
    with pytest.raises(ValueError, match=str(index)):
        unit_id("0" * 32, index)


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": [1, None]}) == digest({"b": [1, None], "a": 1})


def test_a_digest_refuses_what_json_cannot_say():
    with pytest.raises(ValueError, match="JSON"):
        digest({"x": float("nan")})
