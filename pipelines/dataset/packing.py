"""Contexts of one length, filled with documents one after the other.

```
rows of a unit ──▶ documents ──▶ shuffled in the unit ──▶ pieces ──▶ contexts
                  (neighbouring windows of a video)     (a document or part of one)
```
Shapes: L = context length, P = pieces of a context.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from pipelines.dataset.plans import EpochPlan, Layout, Read
from pipelines.dataset.row_index import RowIndex
from pipelines.dataset.samples import Specials, check_mode, describe, window_items
from pipelines.training_draws import Purpose

__all__ = ["Packing", "Pieces", "collate", "cut_pieces", "plan_packing"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """How contexts are filled.

    Attributes:
        context: Items of each, specials and padding included.
        documents: ``video``: neighbouring windows of a video that lie in one row group are one
            document, in order; ``window``: each is one.
        split: A document that does not fit goes on in another context, where nothing of its
            beginning is seen; no padding but in the last context of the epoch. Otherwise it starts
            a new context, and only what is longer than a context is split.
        specials: Put between the tokens.

    Raises:
        ValueError: If ``context`` is less than one, or something is of another kind.
    """

    context: int
    documents: Literal["video", "window"] = "video"
    split: bool = True
    specials: Specials = field(default_factory=Specials)

    def __post_init__(self) -> None:
        check_mode(self, "context")
        if self.documents not in ("video", "window"):
            raise ValueError(f"documents must be 'video' or 'window', not {self.documents!r}")


class Pieces(NamedTuple):
    """Parts of documents in order; one entry each."""

    document: Ints
    start: Ints
    length: Ints
    context: Ints


def cut_pieces(lengths: Ints, context: int, *, split: bool) -> Pieces:
    """Lay documents into contexts.

    Args:
        lengths: Of the documents, in order, each at least one.
        context: Length of a context.
        split: See `Packing`.
    """
    return _cut_anywhere(lengths, context) if split else _cut_long_ones(lengths, context)


def _cut_anywhere(lengths: Ints, context: int) -> Pieces:
    ends = np.cumsum(lengths)
    total = int(ends[-1])
    borders = np.union1d(ends, np.arange(context, total, context))
    starts = np.concatenate([[0], borders[:-1]])
    document = np.searchsorted(ends, starts, side="right")
    return Pieces(
        document=document,
        start=starts - (ends - lengths)[document],
        length=borders - starts,
        context=starts // context,
    )


def _cut_long_ones(lengths: Ints, context: int) -> Pieces:
    pieces: list[tuple[int, int, int, int]] = []
    at, filled = 0, 0
    for document, length in enumerate(lengths.tolist()):
        for start in range(0, length, context):
            part = min(context, length - start)
            if filled + part > context:
                at, filled = at + 1, 0
            pieces.append((document, start, part, at))
            filled += part
    return Pieces(*np.array(pieces, np.int64).T)


class _Documents(NamedTuple):
    """Runs of neighbouring rows; one entry each."""

    unit: Ints
    row: Ints
    """The first one, in the index."""
    num_rows: Ints


class _Contexts:
    """How documents lie in contexts."""

    def __init__(self, documents: _Documents, lengths: Ints, packing: Packing) -> None:
        self._documents = documents
        self._pieces = cut_pieces(lengths, packing.context, split=packing.split)
        self.count = int(self._pieces.context[-1]) + 1

    def pieces(self, context: int) -> Iterator[tuple[int, range, int, int]]:
        """(unit, rows of the document, first item, items) of each piece of a context."""
        begin, end = np.searchsorted(self._pieces.context, [context, context + 1]).tolist()
        for at in range(begin, end):
            unit, row, count = (int(of[self._pieces.document[at]]) for of in self._documents)
            start, length = int(self._pieces.start[at]), int(self._pieces.length[at])
            yield unit, range(row, row + count), start, length


class _PackingPlan:
    def __init__(self, layout: Layout, index: RowIndex, packing: Packing) -> None:
        self._layout = layout
        self._index = index
        self._packing = packing
        frames = index.grid_t if packing.specials.frame is not None else 0 * index.grid_t
        # Items before each row, without what stands between windows.
        self._before = np.concatenate([[0], np.cumsum(index.num_tokens.astype(np.int64) + frames)])
        self._contexts = self._fill(layout.units())
        self._turns = layout.turns(self._contexts.count)
        self.num_lanes = self._turns.count

    def __len__(self) -> int:
        return self._turns.total

    def item(self, index: int, read: Read) -> dict[str, Any]:
        number = self._turns.place(index)
        size, specials = self._packing.context, self._packing.specials
        tokens = np.full(size, specials.pad, np.int64)
        positions = np.full((size, 3), -1, np.int32)
        documents = np.full(size, -1, np.int32)
        borders, windows = [0], list[dict[str, Any]]()
        for piece, (unit, rows, start, length) in enumerate(self._contexts.pieces(number)):
            at = borders[-1]
            for ids, where, window in self._windows(unit, rows, start, start + length, read):
                windows.append({**window, "document": piece, "start": at})
                tokens[at : at + len(ids)] = ids
                positions[at : at + len(ids)] = where
                at += len(ids)
            documents[borders[-1] : at] = piece
            borders.append(at)
        return {
            "tokens": torch.from_numpy(tokens),
            "positions": torch.from_numpy(positions),
            "document_ids": torch.from_numpy(documents),
            "cu_seqlens": torch.tensor(borders, dtype=torch.int32),
            "windows": windows,
        }

    def _fill(self, units: list[int]) -> _Contexts:
        found = [self._documents(unit) for unit in units]
        documents = _Documents(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
        specials = self._packing.specials
        lengths = self._before[documents.row + documents.num_rows] - self._before[documents.row]
        lengths += specials.added(first=True, last=True)
        lengths += specials.added(first=False, last=False) * (documents.num_rows - 1)
        return _Contexts(documents, lengths, self._packing)

    def _documents(self, unit: int) -> _Documents:
        """Those of a unit, in the order of this epoch."""
        rows = self._index.rows(unit)
        begins = self._index.begins[rows.start : rows.stop].copy()
        begins[0] = True
        if self._packing.documents == "window":
            begins[:] = True
        firsts = np.flatnonzero(begins)
        counts = np.diff(np.append(firsts, len(rows)))
        order = self._layout.shuffle(Purpose.ROWS, unit, len(firsts))
        return _Documents(np.full(len(firsts), unit), rows.start + firsts[order], counts[order])

    def _ends(self, rows: range) -> Ints:
        """Items of a document up to the end of each of its windows."""
        specials = self._packing.specials
        ends = self._before[rows.start + 1 : rows.stop + 1] - self._before[rows.start]
        ends += specials.added(first=True, last=False)
        ends += specials.added(first=False, last=False) * np.arange(len(rows))
        ends[-1] += specials.eos is not None
        return ends

    def _windows(
        self, unit: int, document: range, start: int, end: int, read: Read
    ) -> Iterator[tuple[Ints, npt.NDArray[np.int32], dict[str, Any]]]:
        """Items [start, end) of a document, window by window."""
        layout, ends = self._layout, self._ends(document)
        frames = np.cumsum(self._index.grid_t[document.start : document.stop])
        rows = read(layout.corpus.units[unit])
        for at in range(int(np.searchsorted(ends, start, side="right")), len(document)):
            begin = int(ends[at - 1]) if at else 0
            if begin >= end:
                return
            number = int(self._index.numbers[document[at]])
            ids, positions = window_items(
                rows[number],
                layout.corpus.info.tokenizer,
                self._packing.specials,
                where=layout.where(unit, number),
                first=at == 0,
                last=at == len(document) - 1,
                first_frame=int(frames[at - 1]) if at else 0,
            )
            part = slice(max(start - begin, 0), end - begin)
            window = {
                **describe(rows[number], layout.columns),
                "first_item": part.start,
                "length": len(ids[part]),
                "follows": at > 0,
            }
            yield ids[part], positions[part], window


def plan_packing(layout: Layout, index: RowIndex, packing: Packing) -> EpochPlan:
    """Contexts, each a dict.

    - ``tokens`` int64 [L], ``positions`` int32 [L, 3] (see `Specials`);
    - ``document_ids`` int32 [L]: number of the piece, -1 for padding, for attention masks;
    - ``cu_seqlens`` int32 [P + 1]: borders of the pieces, for variable-length attention; behind
      the last one lies padding;
    - ``windows``: a dict for each window: what it is, the number of its ``document`` in this
      context, ``start`` and ``length`` here, ``first_item`` (how many of its items lie in
      a context before), ``follows`` (whether its document has a window before it; the seam is then
      at ``start``).
    """
    return _PackingPlan(layout, index, packing)


def collate(contexts: list[dict[str, Any]]) -> dict[str, Any]:
    """Batch packed contexts: a ``collate_fn`` for a DataLoader.

    Returns:
        Stacked tokens [B, L], positions [B, L, 3], document_ids [B, L]; ``cu_seqlens`` int32 over
        the B * L items laid end to end, padding as pieces of its own; ``windows`` per context.
    """
    stacked = {
        name: torch.stack([context[name] for context in contexts])
        for name in ("tokens", "positions", "document_ids")
    }
    size = stacked["tokens"].shape[1]
    borders = [context["cu_seqlens"].long() + at * size for at, context in enumerate(contexts)]
    ends = torch.arange(1, len(contexts) + 1) * size
    together = torch.unique(torch.cat([*borders, ends]))
    windows = [context["windows"] for context in contexts]
    return {**stacked, "cu_seqlens": together.to(torch.int32), "windows": windows}
