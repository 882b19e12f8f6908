from __future__ import annotations

import pickle

import pytest

from schemas.documents import Document, canonical_json
from schemas.versions import FormatError, check_version


class _Note(Document):
    text: str
    size: int = 0


def test_a_document_equals_itself_after_storage():
    note = _Note(text="ü \u2028", size=2**80)
    assert _Note.from_bytes(note.to_bytes()) == note
    assert _Note.from_bytes(note.to_bytes(indent=2)) == note


def test_equal_documents_give_equal_ascii_bytes():
    data = _Note(size=1, text="é").to_bytes()
    assert data == b'{"format_version":1,"size":1,"text":"\\u00e9"}'
    assert data.isascii()


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "not JSON"),
        (b'{"format_version": 1, "text": "cut', "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"text": "x"}', "no format_version"),
        (b'{"format_version": 2, "text": "x"}', "format_version 2"),
        (b'{"format_version": true, "text": "x"}', "format_version True"),
        (b'{"format_version": 1}', "at text"),
        (b'{"format_version": 1, "text": "x", "more": 1}', "at more"),
    ],
)
def test_a_reader_says_what_is_wrong_with_the_bytes(data: bytes, complaint: str):
    with pytest.raises(FormatError, match=complaint):
        _Note.from_bytes(data)


def test_parquet_metadata_versions_are_text_and_accepted():
    check_version(b"1", what="table")
    with pytest.raises(FormatError, match="version 1 only"):
        check_version(b"7", what="table")


def test_a_format_error_survives_pickling():
    error = FormatError("unit is damaged")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_canonical_json_refuses_infinity():
    with pytest.raises(ValueError, match="JSON"):
        canonical_json([float("inf")])
