"""The items of one epoch, each computed from its number: windows, or batches of like length."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from pipelines.dataset.corpus import Corpus, Unit
from pipelines.dataset.order import Lanes, shuffled, unit_order
from pipelines.dataset.row_index import RowIndex
from pipelines.dataset.samples import Specials, check_mode, describe, row_sample, window_items
from pipelines.training_draws import Purpose

__all__ = ["Buckets", "EpochPlan", "Layout", "Read", "plan_buckets", "plan_samples"]

Row = dict[str, Any]
Read = Callable[[Unit], list[Row]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What decides the order of an epoch.

    Attributes:
        corpus: Its units.
        index: Its rows; None: all of every unit, of unknown length.
        columns: That ride along.
        seed: None: order of the corpus.
        epoch: >= 0.
        lanes: See `order`.
    """

    corpus: Corpus
    index: RowIndex | None
    columns: tuple[str, ...]
    seed: int | None
    epoch: int
    lanes: int

    def units(self) -> list[int]:
        """The units in the order they are read; those without rows are left out."""
        order = unit_order(self.seed, epoch=self.epoch, count=len(self.corpus.units))
        return [unit for unit in order.tolist() if self.num_rows(unit)]

    def turns(self, total: int) -> Lanes:
        """How so many items take turns: without a seed they do not."""
        lanes = 1 if self.seed is None else min(self.lanes, len(self.corpus.units))
        return Lanes(total, lanes)

    def num_rows(self, unit: int) -> int:
        """Rows of a unit that take part."""
        return self.corpus.units[unit].count if self.index is None else len(self.index.rows(unit))

    def number(self, unit: int, row: int) -> int:
        """Number in its unit of the ``row``-th row that takes part."""
        if self.index is None:
            return row
        return int(self.index.numbers[self.index.rows(unit).start + row])

    def shuffle(self, purpose: Purpose, unit: int, count: int) -> npt.NDArray[np.int64]:
        """The order of ``count`` things of a unit."""
        return shuffled(self.seed, purpose, epoch=self.epoch, unit=unit, count=count)

    def where(self, unit: int, number: int) -> str:
        """Names a row in messages."""
        of = self.corpus.units[unit]
        return f"{of.file.path} row {of.first + number}"


class EpochPlan(Protocol):
    """Items by number."""

    num_lanes: int

    def __len__(self) -> int: ...

    def item(self, index: int, read: Read) -> dict[str, Any]:
        """The item.

        Args:
            index: From 0.
            read: Gives the rows of a unit.

        Raises:
            FormatError: If a row does not fit together.
        """
        ...


class _UnitItems:
    """Items that each come from one unit: which unit, and which of its items."""

    def __init__(self, layout: Layout, count: Callable[[int], int]) -> None:
        self._units = layout.units()
        counts = (count(unit) for unit in self._units)
        self._before = list(itertools.accumulate(counts, initial=0))
        self.turns = layout.turns(self._before[-1])

    def find(self, index: int) -> tuple[int, int]:
        """(unit, number of the item in it)."""
        number = self.turns.place(index)
        at = bisect.bisect_right(self._before, number) - 1
        return self._units[at], number - self._before[at]


class _SamplePlan:
    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._items = _UnitItems(layout, layout.num_rows)
        self.num_lanes = self._items.turns.count
        self._orders = _Recent(self._order, self.num_lanes)

    def __len__(self) -> int:
        return self._items.turns.total

    def item(self, index: int, read: Read) -> dict[str, Any]:
        layout = self._layout
        unit, number = self._items.find(index)
        row = layout.number(unit, int(self._orders(unit)[number]))
        return row_sample(
            read(layout.corpus.units[unit])[row],
            layout.corpus.info.tokenizer,
            layout.columns,
            where=layout.where(unit, row),
        )

    def _order(self, unit: int) -> npt.NDArray[np.int64]:
        return self._layout.shuffle(Purpose.ROWS, unit, self._layout.num_rows(unit))


class _Recent:
    """Remembers what was computed for the last few units."""

    def __init__(self, compute: Callable[[int], Any], size: int) -> None:
        self._compute = compute
        self._size = size + 1
        self._known: dict[int, Any] = {}

    def __call__(self, unit: int) -> Any:  # noqa: ANN401  what compute gives
        if unit not in self._known:
            if len(self._known) >= self._size:
                del self._known[next(iter(self._known))]
            self._known[unit] = self._compute(unit)
        return self._known[unit]


@dataclass(frozen=True, slots=True, kw_only=True)
class Buckets:
    """Batches of windows of like length, padded to the longest of them.

    Attributes:
        batch_size: At most so many windows.
        max_tokens: Windows times the longest is at most this, padding included.
        specials: Put around the tokens; each window is a document.

    Raises:
        ValueError: If a number is less than one, or something is of another kind.
    """

    batch_size: int = 64
    max_tokens: int = 1 << 17
    specials: Specials = field(default_factory=Specials)

    def __post_init__(self) -> None:
        check_mode(self, "batch_size", "max_tokens")


class _BucketPlan:
    def __init__(self, layout: Layout, index: RowIndex, buckets: Buckets) -> None:
        self._layout = layout
        self._buckets = buckets
        specials = buckets.specials
        self._lengths = (
            index.num_tokens
            + (index.grid_t if specials.frame is not None else 0)
            + specials.added(first=True, last=True)
        )
        self._index = index
        longest = int(self._lengths.max())
        if longest > buckets.max_tokens:
            raise ValueError(f"a window has {longest} items, max_tokens is {buckets.max_tokens}")
        self._items = _UnitItems(layout, lambda unit: len(self._batches(unit)))
        self.num_lanes = self._items.turns.count
        self._recent = _Recent(self._batches, self.num_lanes)

    def __len__(self) -> int:
        return self._items.turns.total

    def item(self, index: int, read: Read) -> dict[str, Any]:
        layout, specials = self._layout, self._buckets.specials
        unit, number = self._items.find(index)
        rows = read(layout.corpus.units[unit])
        numbers = [layout.number(unit, row) for row in self._recent(unit)[number]]
        tokenizer = layout.corpus.info.tokenizer
        found = [
            window_items(rows[row], tokenizer, specials, where=layout.where(unit, row))
            for row in numbers
        ]
        lengths = torch.tensor([len(ids) for ids, _ in found])
        shape = len(found), int(lengths.max())
        tokens = torch.full(shape, specials.pad)
        positions = torch.full((*shape, 3), -1, dtype=torch.int32)
        for at, (ids, where) in enumerate(found):
            tokens[at, : len(ids)] = torch.from_numpy(ids)
            positions[at, : len(ids)] = torch.from_numpy(where)
        windows = [describe(rows[row], layout.columns) for row in numbers]
        return {"tokens": tokens, "positions": positions, "lengths": lengths, "windows": windows}

    def _batches(self, unit: int) -> list[list[int]]:
        rows = self._index.rows(unit)
        lengths = self._lengths[rows.start : rows.stop]
        mixed = self._layout.shuffle(Purpose.ROWS, unit, len(rows))
        batches: list[list[int]] = []
        # Longest first: the first of a batch says how many fit.
        for row in mixed[np.argsort(-lengths[mixed], kind="stable")].tolist():
            if not batches or len(batches[-1]) >= self._room(int(lengths[batches[-1][0]])):
                batches.append([])
            batches[-1].append(row)
        order = self._layout.shuffle(Purpose.BATCHES, unit, len(batches))
        return [batches[at] for at in order.tolist()]

    def _room(self, longest: int) -> int:
        return min(self._buckets.batch_size, self._buckets.max_tokens // longest)


def plan_samples(layout: Layout) -> EpochPlan:
    """Every window by itself: what `samples.row_sample` gives."""
    return _SamplePlan(layout)


def plan_buckets(layout: Layout, index: RowIndex, buckets: Buckets) -> EpochPlan:
    """Padded batches: tokens int64 [B, n], positions int32 [B, n, 3], lengths int64 [B], windows.

    Raises:
        ValueError: If a window is longer than ``max_tokens``.
    """
    return _BucketPlan(layout, index, buckets)
