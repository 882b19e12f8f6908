"""What a start of pass one has still to do, in parts that Ray is given one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.id_set import IdSet
from pipelines.observe import Progress
from pipelines.plan import Plan
from schemas.plan import BLOCK_VIDEOS

__all__ = ["waves"]


def waves(
    plan: Plan,
    finished: NDArray[np.bool_],
    only: IdSet | None,
    progress: Progress,
    wave_videos: int,
) -> Iterator[list[dict[str, Any]]]:
    """Rows of the videos that are not finished, in plan order.

    What is finished is counted first, so that the progress of a resume begins where the last one
    stopped: counting as the waves go would let the ETA jump.

    Args:
        finished: For each video of the plan, whether it has a receipt.
        only: Ids of the videos to look at; None for all.
        wave_videos: Videos per part; if that is a block or more, the last block is not cut.
    """
    wanted = plan.among(only)
    done = finished & wanted
    progress.done += int(done.sum())
    for start, table in plan.columns("size", wanted=done):
        sizes = table["size"].to_numpy()
        progress.done_bytes += int(sizes[done[start : start + len(sizes)]].sum())
    progress.start()
    yield from _cut(plan.rows(wanted & ~finished), wave_videos)


def _cut(rows: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    wave: list[dict[str, Any]] = []
    for row in rows:
        whole = size < BLOCK_VIDEOS or (wave and wave[-1]["block"] != row["block"])
        if len(wave) >= size and whole:
            yield wave
            wave = []
        wave.append(row)
    if wave:
        yield wave
