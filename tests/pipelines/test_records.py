"""What travels between the stages comes out as it went in, and frames are never copied."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.decode_types import failure_from_json, failure_to_json
from pipelines.records import (
    DecodedUnit,
    Status,
    statuses_to_table,
    table_to_statuses,
    table_to_units,
    unit_to_table,
)
from schemas.failures import Failure, FailureReason, FailureStage
from schemas.windows import WindowSpan

VIDEO = "0123456789abcdef" * 2


def unit(num_windows: int = 2, side: int = 16, seed: int = 0) -> DecodedUnit:
    rng = np.random.default_rng(seed)
    return DecodedUnit(
        video=VIDEO,
        unit_index=seed,
        path=f"units/{seed}",
        spans=tuple(
            WindowSpan(
                window_index=16 * seed + index,
                start_frame=5 * index,
                num_frames=5,
                start_time_s=index / 7,
                end_time_s=(index + 1) / 7,
            )
            for index in range(num_windows)
        ),
        frames_NTHWC=rng.integers(0, 256, (num_windows, 5, side, side + 16, 3), np.uint8),
    )


def status(kind: str = "end", **payload: object) -> Status:
    return Status(kind="end" if kind == "end" else "unit", video=VIDEO, payload=payload)


def same(a: DecodedUnit, b: object) -> bool:
    assert isinstance(b, DecodedUnit)
    fields = ("video", "unit_index", "path", "spans")
    return all(getattr(a, name) == getattr(b, name) for name in fields) and np.array_equal(
        a.frames_NTHWC, b.frames_NTHWC
    )


def test_a_unit_comes_out_as_it_went_in():
    sent = unit()
    [received] = table_to_units(unit_to_table(sent))
    assert same(sent, received)


def test_frames_are_views_both_ways_and_read_only():
    sent = unit()
    table = unit_to_table(sent)
    buffers = [buffer.address for buffer in table["frames"].chunk(0).buffers() if buffer]
    assert sent.frames_NTHWC.__array_interface__["data"][0] in buffers
    [received] = table_to_units(table)
    assert isinstance(received, DecodedUnit)
    assert np.shares_memory(received.frames_NTHWC, sent.frames_NTHWC)
    with pytest.raises(ValueError, match="read-only"):
        received.frames_NTHWC[0] = 0


def test_frames_that_are_not_contiguous_are_sent_in_order():
    sent = unit()
    turned = DecodedUnit(
        video=sent.video,
        unit_index=0,
        path=sent.path,
        spans=sent.spans,
        frames_NTHWC=sent.frames_NTHWC[:, ::-1],
    )
    [received] = table_to_units(unit_to_table(turned))
    assert same(turned, received)


def test_units_and_statuses_of_one_block_keep_their_order():
    first, second = unit(seed=1), unit(side=32, seed=2)
    table = pa.concat_tables(
        [
            unit_to_table(first),
            statuses_to_table([status(n=1), status("unit", n=2)]),
            unit_to_table(second),
        ]
    )
    found = list(table_to_units(table))
    assert same(first, found[0])
    assert found[1:3] == [status(n=1), status("unit", n=2)]
    assert same(second, found[3])


def test_a_slice_of_a_merged_block_gives_the_units_of_the_slice():
    units = [unit(seed=seed) for seed in range(4)]
    merged = pa.concat_tables([unit_to_table(item) for item in units]).combine_chunks()
    found = list(table_to_units(merged.slice(1, 2)))
    assert len(found) == 2
    assert same(units[1], found[0])
    assert same(units[2], found[1])


@given(
    st.lists(
        st.dictionaries(
            st.text(max_size=5),
            st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=3),
            max_size=3,
        ),
        max_size=5,
    )
)
def test_statuses_come_out_as_they_went_in(payloads: list[dict[str, object]]):
    sent = [Status(kind="unit", video=VIDEO, payload=payload) for payload in payloads]
    assert list(table_to_statuses(statuses_to_table(sent))) == sent
    assert list(table_to_units(statuses_to_table(sent))) == sent


def test_integers_of_any_size_survive():
    # Sums of information are beyond 64 bits for a long video.
    sent = [status("unit", weighted=3**90)]
    assert list(table_to_statuses(statuses_to_table(sent))) == sent


def test_a_block_of_units_has_the_schema_of_a_block_of_statuses():
    assert unit_to_table(unit()).schema == statuses_to_table([status()]).schema
    assert statuses_to_table([]).num_rows == 0


@pytest.mark.parametrize("reason", list(FailureReason))
def test_failures_survive_their_json(reason: FailureReason):
    for stage in FailureStage:
        failure = Failure(reason=reason, stage=stage, detail="it broke", num_frames=7)
        assert failure_from_json(failure_to_json(failure)) == failure
