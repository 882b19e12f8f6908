"""Which visit to which video gives clip g: pure arithmetic, so that a resume needs no bookkeeping.

```
clip g of the run ──▶ (lane, position)      a step's clips are dealt to the lanes in equal runs
position          ──▶ (block, slot)         a block always has the same number of clips
slot              ──▶ clip of the block     a permutation of its own
clip of the block ──▶ (visit, clip)         visits of all lanes interleave
visit             ──▶ (epoch, video)        a permutation per epoch
```
Nothing depends on what a video turns out to hold: every visit gives the same number of clips.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.training_config import ClipsConfig
from pipelines.training_draws import Purpose, order

__all__ = ["LanePlan", "Place"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a clip lies: the ``slot``-th dealt of the ``block``-th block of a lane."""

    lane: int
    block: int
    slot: int


class LanePlan:
    """The arithmetic of a corpus of ``num_videos`` videos under a configuration.

    Does not depend on rank, on the number of ranks at equal ``global_batch``, or on workers.
    """

    def __init__(self, config: ClipsConfig, num_videos: int) -> None:
        self._seed = config.seed
        self._global_batch = config.global_batch
        self._num_videos = num_videos
        self._block_videos = config.block_videos
        self.num_lanes = min(config.num_lanes, config.global_batch)
        self.clips_per_visit = config.clips_per_visit
        self.clips_per_block = config.block_videos * config.clips_per_visit
        self._epoch = functools.lru_cache(maxsize=2)(
            lambda epoch: order(config.seed, Purpose.EPOCH, epoch, num_videos)
        )

    def place(self, sample: int) -> Place:
        """Where clip ``sample`` (from 0, counted over all ranks and steps) lies."""
        step, k = divmod(sample, self._global_batch)
        lane = k * self.num_lanes // self._global_batch
        first, after = self._first(lane), self._first(lane + 1)
        # Lanes end their blocks one after the other: decoding them is spread over the steps.
        ahead = lane * self.clips_per_block // self.num_lanes
        position = ahead + step * (after - first) + k - first
        block, slot = divmod(position, self.clips_per_block)
        return Place(lane, block, slot)

    def _first(self, lane: int) -> int:
        """The first clip of a step that this lane deals."""
        return -(-lane * self._global_batch // self.num_lanes)

    def visits(self, lane: int, block: int) -> range:
        """Numbers of the visits that a block is made from."""
        first = block * self._block_videos * self.num_lanes + lane
        return range(first, first + self._block_videos * self.num_lanes, self.num_lanes)

    def substitutes(self, lane: int, block: int) -> range:
        """Visits to ask, one after the other, if none of a block gives a clip: every video once."""
        first = self.visits(lane, block).start // self._num_videos * self._num_videos
        return range(first, first + self._num_videos)

    def deal(self, lane: int, block: int) -> npt.NDArray[np.int64]:
        """For each slot of a block, which of its clips is dealt.

        Clips are numbered 0 .. ``clips_per_block - 1``, visit by visit.
        """
        index = block * self.num_lanes + lane
        return order(self._seed, Purpose.DEAL, index, self.clips_per_block)

    def video(self, visit: int) -> int:
        """Index of the video that a visit goes to; each epoch visits every video once."""
        epoch, place = divmod(visit, self._num_videos)
        return int(self._epoch(epoch)[place])
