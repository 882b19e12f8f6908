"""Ten million ids in little memory, and no id that was not put in."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.id_set import IdSet

# A few first halves, so that ids often share theirs.
halves = st.sampled_from(["00" * 8, "01" * 8, "ff" * 8])
ids = st.tuples(halves, st.binary(min_size=8, max_size=8).map(bytes.hex)).map("".join)


@given(st.lists(ids, max_size=50), st.lists(ids, max_size=20))
def test_a_set_of_ids_holds_what_was_put_in_and_nothing_else(inside: list[str], other: list[str]):
    found = IdSet(iter(inside))
    asked = inside + other
    expected = [item in set(inside) for item in asked]
    assert [item in found for item in asked] == expected
    assert found.among(pa.chunked_array([asked[:7], asked[7:]], pa.string())).tolist() == expected
    assert len(found) == len(inside)


@given(st.lists(ids, max_size=50, unique=True), st.integers(0, 50))
def test_columns_give_the_same_set_as_single_ids(inside: list[str], count: int):
    columns = [pa.chunked_array([part], pa.string()) for part in (inside[:9], inside[9:])]
    lowest = IdSet.of_columns(columns).lowest(count)
    assert [item for item in sorted(inside) if item in lowest] == sorted(inside)[:count]


def test_part_of_a_column_is_asked_for_that_part_alone():
    column = pa.chunked_array([[f"{index:032x}" for index in range(10)]])
    assert IdSet(["0" * 31 + "3"]).among(column.slice(2, 4)).tolist() == [False, True, False, False]


def test_ids_that_end_in_zeros_are_told_apart():
    # numpy drops the zeros at the end of some byte types.
    short, long = "00" * 16, "01" + "00" * 15
    assert long not in IdSet(iter([short]))
    assert short in IdSet(iter([long, short]))


def test_a_column_of_anything_else_is_refused():
    with pytest.raises(ValueError, match="32 digits"):
        IdSet.of_columns([pa.chunked_array([["abc"]])])
