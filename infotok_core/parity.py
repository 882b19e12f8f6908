"""Does this implementation compute what the published one computed? Golden arrays decide."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from infotok_core.golden import Golden

__all__ = ["LIMIT", "PIXEL_SHARE", "Comparison", "StageSummary", "check_golden", "summarise"]

LIMIT = 1e-4
"""Largest absolute error a float32 re-implementation may show. The golden sets keep every value
before rounding at least 4e-4 away from a rounding boundary, so tokens have to be identical."""

PIXEL_SHARE = 1e-3
"""Share of 8-bit values that may be off by one level. An error of 1e-5 before rounding is 1.3e-3
levels, and that share of values lands on the other side of a boundary on another CPU."""

Kind = Literal["values", "tokens", "mask bits", "pixels", "counts", "unknown"]

_KINDS: dict[str, Kind] = {
    "fsq_idx": "tokens",
    "mask": "mask bits",
    "out_u8": "pixels",
    "count_per_frame": "counts",
    "kept": "counts",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One golden array against ours."""

    name: str
    kind: Kind
    max_error: float
    """Largest absolute difference; NaN or infinity where shapes differ or a value is not finite."""
    num_different: int
    """Elements that differ at all."""
    size: int

    @property
    def stage(self) -> str:
        """The name without its clip and rate: what a table groups by."""
        parts = re.sub(r"\.\d+(\.\d+)?(?=\.)", "", self.name).split(".")
        return ".".join(parts if parts[0] == "pipe" else parts[1:])

    @property
    def passed(self) -> bool:
        """Whether this array agrees; see `LIMIT` and `PIXEL_SHARE`."""
        match self.kind:
            case "unknown":
                return False
            case "values":
                return self.max_error <= LIMIT
            case "pixels":
                return self.max_error <= 1 and self.num_different <= PIXEL_SHARE * self.size
            case _:
                return self.num_different == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSummary:
    """All comparisons of one stage."""

    stage: str
    kind: Kind
    num_arrays: int
    max_error: float
    num_different: int
    size: int
    passed: bool


def check_golden(golden: Golden) -> list[Comparison]:
    """Compare every array of a golden set, in its order, the input videos excepted.

    A name that means nothing here is reported as ``unknown`` and fails: no array is passed over in
    silence.
    """
    return [
        _compare(name, wanted, golden.compute(name))
        for name, wanted in golden.arrays.items()
        if not golden.is_input(name)
    ]


def summarise(comparisons: Iterable[Comparison]) -> list[StageSummary]:
    """One line a stage, in the order of first appearance."""
    groups: dict[tuple[str, Kind], list[Comparison]] = {}
    for comparison in comparisons:
        groups.setdefault((comparison.stage, comparison.kind), []).append(comparison)
    return [
        StageSummary(
            stage=stage,
            kind=kind,
            num_arrays=len(group),
            # np.max keeps a NaN where max() may lose it.
            max_error=float(np.max([c.max_error for c in group])),
            num_different=sum(c.num_different for c in group),
            size=sum(c.size for c in group),
            passed=all(c.passed for c in group),
        )
        for (stage, kind), group in groups.items()
    ]


def _compare(name: str, wanted: NDArray[Any], ours: NDArray[Any] | None) -> Comparison:
    kind: Kind = "unknown" if ours is None else _KINDS.get(name.rsplit(".", 1)[1], "values")
    if ours is None or ours.shape != wanted.shape:
        return Comparison(
            name=name, kind=kind, max_error=np.inf, num_different=wanted.size, size=wanted.size
        )
    error = np.abs(ours.astype(np.float64) - wanted.astype(np.float64))
    return Comparison(
        name=name,
        kind=kind,
        max_error=float(error.max(initial=0)),
        num_different=int(np.count_nonzero(error)),
        size=wanted.size,
    )
