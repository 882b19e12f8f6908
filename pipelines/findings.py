"""What a check found, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Finding", "Verdict", "bad", "doubtful", "good"]


class Verdict(StrEnum):
    """Whether a run would work."""

    GOOD = "ok"
    DOUBTFUL = "look"
    BAD = "FAIL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        advice: What to do; empty where nothing has to be done.
    """

    name: str
    verdict: Verdict
    what: str
    advice: str = ""


def good(name: str, what: str) -> Finding:
    """Nothing has to be done."""
    return Finding(name=name, verdict=Verdict.GOOD, what=what)


def doubtful(name: str, what: str, advice: str) -> Finding:
    """A run would go on, with something to be known."""
    return Finding(name=name, verdict=Verdict.DOUBTFUL, what=what, advice=advice)


def bad(name: str, what: str, advice: str) -> Finding:
    """A run would fail."""
    return Finding(name=name, verdict=Verdict.BAD, what=what, advice=advice)
