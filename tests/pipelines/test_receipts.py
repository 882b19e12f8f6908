"""From status rows, in whatever order they come, to one receipt per video."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from strategies import FACTS
from work_folders import BROKEN, statuses_of, window

from pipelines.decode_types import failure_to_json
from pipelines.receipts import ReceiptBuilder, lost_receipt
from pipelines.records import Status
from schemas.failures import Failure, FailureReason, FailureStage
from schemas.ids import video_id
from schemas.receipts import VideoReceipt
from schemas.statistics import ElboBins
from schemas.units import window_sum

URI = "a.mp4"
VIDEO = video_id(URI)
WINDOWS = [window(0.01 * (index + 1), index=index, shape=(1, 2, 2)) for index in range(40)]
ROWS = statuses_of(VIDEO, URI, WINDOWS)
"""Three units and the end."""


def collect(statuses: list[Status]) -> VideoReceipt | None:
    builder = ReceiptBuilder()
    for status in statuses:
        builder.add(status)
    return builder.receipt(VIDEO)


def failed_unit(index: int, reason: FailureReason = FailureReason.NON_FINITE) -> Status:
    failure = Failure(reason=reason, stage=FailureStage.ANALYSE, detail="window 17")
    payload = {"unit_index": index, "failure": failure_to_json(failure)}
    return Status(kind="unit", video=VIDEO, payload=payload)


def test_a_receipt_adds_up():
    receipt = collect(ROWS)
    assert receipt is not None
    assert (receipt.status, receipt.windows, receipt.tokens) == ("analysed", 40, 160)
    assert [unit.windows for unit in receipt.units] == [16, 16, 8]
    assert receipt.bins.weighted == sum(window_sum(w.information) for w in WINDOWS)
    assert receipt.stream_facts() == FACTS
    assert receipt.num_frames_decoded == 9 * 40


@given(st.permutations(ROWS))
def test_the_order_of_arrival_does_not_matter(rows: list[Status]):
    assert collect(rows) == collect(ROWS)


@given(st.permutations(ROWS), st.data())
def test_repeated_rows_change_nothing(rows: list[Status], data: st.DataObject):
    again = data.draw(st.lists(st.sampled_from(ROWS), max_size=6))
    assert collect([*again, *rows, *again]) == collect(ROWS)


@given(st.permutations(ROWS), st.integers(1, len(ROWS)))
def test_there_is_no_receipt_before_the_last_row(rows: list[Status], missing: int):
    assert collect(rows[missing:]) is None


@given(st.integers(0, 2), st.data())
def test_one_failed_unit_fails_its_video_in_any_order(index: int, data: st.DataObject):
    rows = [failed_unit(index) if n == index else row for n, row in enumerate(ROWS)]
    receipt = collect(data.draw(st.permutations(rows)))
    assert receipt is not None
    assert receipt.failure is not None
    assert receipt.failure.reason == FailureReason.NON_FINITE
    assert (receipt.status, receipt.units, receipt.tokens) == ("quarantined", (), 0)
    assert receipt.bins == ElboBins.empty()
    assert receipt.windows == 40


@given(st.permutations([failed_unit(0), failed_unit(2, FailureReason.OUT_OF_MEMORY), *ROWS[1:2]]))
def test_of_several_failed_units_the_first_of_the_video_is_told(rows: list[Status]):
    receipt = collect([*rows, ROWS[-1]])
    assert receipt is not None
    assert receipt.failure is not None
    assert receipt.failure.reason == FailureReason.NON_FINITE


def test_a_video_that_broke_off_is_set_aside_whatever_was_stored():
    end = statuses_of(VIDEO, URI, BROKEN)[-1]
    for rows in ([end], [*ROWS[:2], end], [end, *ROWS[:2]]):
        receipt = collect(rows)
        assert receipt is not None
        assert receipt.failure is not None
        assert receipt.failure.failure() == BROKEN
        assert receipt.units == ()


def test_a_video_without_a_window_is_too_short():
    [end] = statuses_of(VIDEO, URI, [])
    receipt = collect([end])
    assert receipt is not None
    assert receipt.failure is not None
    assert receipt.failure.reason == FailureReason.TOO_SHORT


def test_windows_that_do_not_add_up_are_an_internal_failure_not_a_corpus():
    end = ROWS[-1]
    wrong = Status(kind="end", video=VIDEO, payload={**end.payload, "windows": 41})
    receipt = collect([*ROWS[:-1], wrong])
    assert receipt is not None
    assert receipt.failure is not None
    assert receipt.failure.reason == FailureReason.INTERNAL
    assert receipt.failure.detail == "decoded 41 windows, analysed 40"


def test_a_video_whose_workers_were_lost_has_a_receipt_too():
    row = {"video_id": VIDEO, "uri": URI, "version": "v1", "size": 7, "stored_units": []}
    receipt = lost_receipt(row, attempts=3)
    assert receipt.failure is not None
    assert receipt.failure.reason == FailureReason.WORKER_LOST
    assert (receipt.uri, receipt.version, receipt.attempts) == (URI, "v1", 3)


def test_receipts_survive_their_json():
    receipt = collect(ROWS)
    assert receipt is not None
    assert VideoReceipt.model_validate_json(receipt.model_dump_json()) == receipt
    assert np.isclose(
        receipt.bins.window_weighted_mean, np.mean([0.01 * (i + 1) for i in range(40)]), rtol=1e-3
    )
