from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
from strategies import token_rows

from pipelines.row_checks import compare_rows
from schemas.versions import FormatError
from schemas.webdataset import member_row, sample_members

ROW = token_rows("a.mp4", 1, label="x", empty=None, score=math.nan, count=2**60)[0]


def _parts() -> dict[str, bytes]:
    return {name.partition(".")[2]: data for name, data in sample_members(ROW)}


def test_members_have_one_key_and_are_sorted():
    names = [name for name, _ in sample_members(ROW)]
    assert names == sorted(names)
    assert names == [f"{ROW['clip_id']}.{part}" for part in ("json", "mask.npy", "tokens.npy")]


def test_a_row_survives_its_members():
    assert compare_rows(ROW, member_row(_parts())) == []
    assert member_row(_parts())["tokens"].dtype == np.uint16


def test_what_json_cannot_say_is_left_out():
    document = json.loads(_parts()["json"])
    assert "empty" not in document
    assert "score" not in document
    assert document["count"] == 2**60


def test_equal_rows_give_equal_bytes():
    assert sample_members(ROW) == sample_members(dict(reversed(ROW.items())))


@pytest.mark.parametrize("key", ["a.b", "a/b"])
def test_a_key_that_webdataset_would_split_is_refused(key: str):
    with pytest.raises(ValueError, match="neither dots nor slashes"):
        sample_members({**ROW, "clip_id": key})


@pytest.mark.parametrize(
    ("part", "data", "complaint"),
    [
        ("tokens.npy", None, "no member 'tokens.npy'"),
        ("tokens.npy", b"\x93NUMPY", "damaged"),
        ("json", b"{", "damaged"),
        ("json", b"[]", "not an object"),
        ("json", b"{}", "no format_version"),
        ("json", b'{"format_version": 2}', "format_version 2"),
    ],
)
def test_a_damaged_sample_is_a_clear_error(part: str, data: bytes | None, complaint: str):
    parts = _parts()
    if data is None:
        del parts[part]
    else:
        parts[part] = data
    with pytest.raises(FormatError, match=complaint):
        member_row(parts)


def test_pickled_arrays_are_not_opened():
    file = io.BytesIO()
    np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(FormatError, match="damaged"):
        member_row({**_parts(), "tokens.npy": file.getvalue()})
