from __future__ import annotations

import pytest
from strategies import TOKENIZER, analysis

from schemas.failures import FailureReason
from schemas.quarantine import decode_quarantine, encode_quarantine, quarantine_row
from schemas.receipts import FailureRecord, VideoReceipt
from schemas.units import encode_unit
from schemas.versions import FormatError


def _receipt(video: str, reason: FailureReason = FailureReason.EMPTY_FILE) -> VideoReceipt:
    return VideoReceipt(
        video_id=video,
        uri=f"{video}.mp4",
        version="0-1",
        status="quarantined",
        windows=4,
        attempts=2,
        failure=FailureRecord(reason=reason, stage="open", detail="zero bytes", num_frames=3),
    )


def test_rows_survive_storage_in_order_of_the_video():
    rows = [quarantine_row(_receipt(video)) for video in ("b", "a")]
    assert decode_quarantine(encode_quarantine(rows)) == rows[::-1]
    assert rows[0]["attempts"] == 2
    assert rows[0]["windows"] == 4


def test_nothing_set_aside_is_a_table_too():
    assert decode_quarantine(encode_quarantine([])) == []


@pytest.mark.parametrize("reason", list(FailureReason))
def test_every_reason_can_be_stored(reason: FailureReason):
    data = encode_quarantine([quarantine_row(_receipt("a", reason))])
    assert decode_quarantine(data)[0]["reason"] is reason


def test_an_unknown_reason_is_a_clear_error():
    row = {**quarantine_row(_receipt("a")), "reason": "MELTED"}
    with pytest.raises(FormatError, match="MELTED"):
        decode_quarantine(encode_quarantine([row]))


def test_another_table_is_a_clear_error():
    unit = encode_unit([analysis(1)], video="0" * 32, unit_index=0, tokenizer=TOKENIZER)
    with pytest.raises(FormatError, match="column video_id must be string, but is missing"):
        decode_quarantine(unit)


def test_a_required_column_cannot_be_null():
    row = {**quarantine_row(_receipt("a")), "detail": None}
    with pytest.raises(ValueError, match="detail"):
        encode_quarantine([row])
