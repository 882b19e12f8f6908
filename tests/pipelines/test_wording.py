"""What people are told in numbers and sentences."""

from __future__ import annotations

from pipelines.wording import unread_text


def test_videos_that_the_store_did_not_hand_out_are_told_with_what_adds_them():
    text = unread_text({"ACCESS_DENIED": 2, "SOURCE_UNAVAILABLE": 1, "TRUNCATED": 5})
    assert text is not None
    assert text.startswith("3 videos could not be read")
    assert "--reason ACCESS_DENIED --reason SOURCE_UNAVAILABLE" in text


def test_videos_that_are_broken_are_not_among_them():
    assert unread_text({"TRUNCATED": 5, "NOT_FOUND": 1}) is None
