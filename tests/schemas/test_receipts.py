from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from strategies import FACTS, analysis, bins_of

from schemas.failures import Failure, FailureReason, FailureStage
from schemas.receipts import FailureRecord, UnitEntry, VideoReceipt
from schemas.units import window_sum
from schemas.versions import FormatError

ENTRY = UnitEntry(
    unit_id="v-u00000", path="units/x.parquet", windows=1, tokens=48, sha256="a" * 64, num_bytes=9
)
FAILURE = Failure(
    reason=FailureReason.TRUNCATED, stage=FailureStage.DECODE, detail="cut", num_frames=7
)


def _analysed(**change: Any) -> dict[str, Any]:
    return {
        "video_id": "v",
        "uri": "a.mp4",
        "version": "1-2",
        "status": "analysed",
        "facts": asdict(FACTS),
        "windows": 1,
        "tokens": 48,
        "units": (ENTRY,),
        "num_frames_decoded": 9,
        "bins": bins_of([(window_sum(analysis(1).information), 48)]),
        **change,
    }


def test_a_receipt_survives_storage():
    receipt = VideoReceipt(**_analysed())
    stored = VideoReceipt.from_bytes(receipt.to_bytes())
    assert stored == receipt
    assert stored.stream_facts() == FACTS


def test_a_failure_survives_storage():
    receipt = VideoReceipt(
        video_id="v",
        uri="a.mp4",
        version="1",
        status="quarantined",
        failure=FailureRecord.of(FAILURE),
    )
    stored = VideoReceipt.from_bytes(receipt.to_bytes())
    assert stored.failure is not None
    assert stored.failure.failure() == FAILURE
    with pytest.raises(ValueError, match="no stream facts"):
        stored.stream_facts()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"windows": 2}, "2 windows"),
        ({"tokens": 47}, "47 tokens"),
        ({"units": ()}, "units hold 0"),
        ({"facts": None}, "no stream facts"),
        ({"status": "quarantined"}, "failure None"),
        ({"failure": FailureRecord.of(FAILURE)}, "is analysed"),
        ({"failure": FailureRecord.of(FAILURE), "status": "quarantined"}, "has units"),
        ({"attempts": 0}, "attempts"),
    ],
)
def test_a_receipt_that_does_not_add_up_is_refused(change: dict[str, Any], complaint: str):
    with pytest.raises(ValueError, match=complaint):
        VideoReceipt(**_analysed(**change))


def test_a_reason_of_another_release_is_a_clear_error():
    data = VideoReceipt(
        video_id="v",
        uri="a.mp4",
        version="1",
        status="quarantined",
        failure=FailureRecord.of(FAILURE),
    ).to_bytes()
    with pytest.raises(FormatError, match=r"failure\.reason"):
        VideoReceipt.from_bytes(data.replace(b"TRUNCATED", b"MELTED"))
