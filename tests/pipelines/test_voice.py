"""A word now and then, and none too many."""

from __future__ import annotations

import pytest

from pipelines.voice import Voice


class Hand:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Hand:
    return Hand()


def test_a_line_is_said_after_a_silence_and_ends_it(clock: Hand):
    lines: list[str] = []
    voice = Voice(lines.append, clock)
    for second in range(70):
        clock.now = second
        voice.after_silence(lambda: f"at {clock.now}")
    assert lines == ["at 21", "at 42", "at 63"]


@pytest.mark.parametrize("spoken", [True, False])
def test_silence_is_counted_from_the_last_line_or_from_where_it_was_told_to(
    clock: Hand, spoken: bool
):
    lines: list[str] = []
    voice = Voice(lines.append, clock)
    clock.now = 15.0
    if spoken:
        voice("a line")
    else:
        voice.listen()
    lines.clear()
    for clock.now, expected in ((34.0, []), (36.0, ["silence"])):
        voice.after_silence(lambda: "silence")
        assert lines == expected
