"""The driver's side of receipts: which videos are finished, and when a block is to be packed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.plan import Plan
from pipelines.receipt_store import ReceiptStore
from pipelines.work import WorkFolder
from schemas.plan import BLOCK_VIDEOS
from schemas.receipt_packs import PackedReceipt
from schemas.receipts import VideoReceipt

__all__ = ["BlockKeeper"]

_HELD = 4 * BLOCK_VIDEOS
"""Receipts that are kept for packing; those of a block that stays open for long are read again."""


class BlockKeeper:
    """Publishes receipts as they come, and packs each block when its last video is finished.

    Blocks that an earlier driver finished but did not pack are packed at once.

    Attributes:
        finished: For each video of the plan, whether it had a receipt when this was made.
    """

    def __init__(self, plan: Plan, work: WorkFolder) -> None:
        self._plan = plan
        self._work = work
        self._receipts = ReceiptStore(plan, work.store)
        self._held: dict[str, PackedReceipt] = {}
        self.finished = self._receipts.finished()
        starts = np.arange(0, len(self.finished), BLOCK_VIDEOS)
        self._open: NDArray[np.int64] = np.add.reduceat(~self.finished, starts, dtype=np.int64)
        for block in np.flatnonzero(self._open == 0).tolist():
            self._pack(block)

    def put(self, receipt: VideoReceipt) -> None:
        """Publish a receipt; may be called from several threads at a time."""
        self._receipts.put(receipt)
        self._held[receipt.video_id] = PackedReceipt.of(receipt)

    def wave_done(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Pack the blocks that these videos, all of them finished now, were the last of."""
        for row in rows:
            self._open[row["block"]] -= 1
            if self._open[row["block"]] == 0:
                self._pack(row["block"])
        if len(self._held) > _HELD:
            self._held.clear()

    def _pack(self, block: int) -> None:
        if self._receipts.is_packed(block):
            return
        for video in self._receipts.pack(block, self._held):
            self._held.pop(video, None)
        self._work.forget_starts(block)
