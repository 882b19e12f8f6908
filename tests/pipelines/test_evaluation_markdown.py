"""How the tables of an evaluation are written."""

from __future__ import annotations

import pytest

from pipelines.evaluation.markdown import code, signed, table


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("a.mp4", "`a.mp4`"),
        ("a`b.mp4", "`` a`b.mp4 ``"),
        ("a``b`.mp4", "``` a``b`.mp4 ```"),
        ("two\nlines.mp4", "`two lines.mp4`"),
    ],
)
def test_a_name_is_shown_literally(name: str, wanted: str):
    assert code(name) == wanted


def test_a_pipe_in_a_name_makes_no_column():
    assert table("T", ["video"], [[code("a|b")]]).splitlines()[-1] == "| `a\\|b` |"


@pytest.mark.parametrize(
    ("value", "wanted"), [(-0.001, "+0.00"), (0.0, "+0.00"), (-0.006, "-0.01")]
)
def test_what_rounds_to_nothing_has_no_minus(value: float, wanted: str):
    assert signed(value) == wanted
