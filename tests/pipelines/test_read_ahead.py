"""Results come in order, a few of them before they are asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.read_ahead import read_ahead


@given(st.lists(st.integers(), max_size=20), st.integers(1, 5))
def test_results_come_in_order_with_what_they_were_made_of(items: list[int], ahead: int):
    assert list(read_ahead(items, str, ahead=ahead)) == [(item, str(item)) for item in items]


def test_no_more_is_taken_than_is_read_ahead():
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    loop = read_ahead(items(), str, ahead=3)
    assert next(loop) == (0, "0")
    assert taken == [0, 1, 2, 3]


def test_reading_overlaps():
    gate = threading.Barrier(4, timeout=10)
    assert [n for n, _ in read_ahead(range(4), lambda _: gate.wait(), ahead=4)] == [0, 1, 2, 3]


def test_an_error_comes_where_its_result_would():
    def invert(value: int) -> float:
        return 1 / value

    with ThreadPoolExecutor(2) as pool:
        loop = read_ahead([1, 2, 0, 3], invert, pool=pool)
        assert [next(loop) for _ in range(2)] == [(1, 1.0), (2, 0.5)]
        with pytest.raises(ZeroDivisionError):
            next(loop)
