"""Clips of a corpus of any size: decoded while the network trains, shuffled in bounded memory.

```
visits of a block ──▶ decoding processes ──▶ clips of the block ──▶ slots in random order ──▶ batch
                       (one per worker)       (two blocks per lane)                    (two ahead)
```
Which clip comes where is decided by `training_lanes` without looking at a video, so the number of
workers, their luck, and kills change nothing. Memory: at most ``2 * num_lanes * clips_per_block``
clips over all ranks, a visit's windows per worker, and three batches.
"""

from __future__ import annotations

import atexit
import functools
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future

import numpy as np
import torch
from torch import Tensor

from pipelines.errors import PipelineError
from pipelines.training_config import ClipsConfig
from pipelines.training_lanes import LanePlan, Place
from pipelines.training_videos import TrainingVideos
from pipelines.training_visits import Clip, StoppedError, VisitDecoder
from pipelines.training_workers import Workers

__all__ = ["StreamClips"]

_BATCHES_AHEAD = 2


class StreamClips:
    """A `ClipSource` that decodes as it goes.

    Resuming at a step decodes the blocks that are being dealt at that step, and nothing before.

    Args:
        videos: The corpus; closed with this.
        workers: Decoding processes.
        start_step: The first step that will be asked for.
    """

    def __init__(
        self,
        videos: TrainingVideos,
        config: ClipsConfig,
        *,
        workers: int,
        device: str | torch.device,
        start_step: int = 0,
    ) -> None:
        self.kind = "stream"
        self.corpus_digest = videos.digest
        self._config = config
        self._device = torch.device(device)
        self._next_step = start_step
        self._blocks = _Blocks(videos, config, workers=workers)
        self._assembler = Workers(1, name="clips")
        self._ahead: deque[Future[Tensor]] = deque()
        # An interpreter that ends under running daemon threads may crash.
        atexit.register(self.close)
        self._blocks.begin(self._places(start_step))
        self._look_ahead()

    def batch(self, step: int) -> Tensor:
        """See `ClipSource.batch`.

        Raises:
            ValueError: If this step was passed already.
            PipelineError: If the store or a decoding process fails, or no video gives a clip.
        """
        if step < self._next_step:
            raise ValueError(f"step {step} was passed: the next one is {self._next_step}")
        while True:
            host = self._ahead.popleft().result()
            self._next_step += 1
            self._look_ahead()
            if self._next_step > step:
                return host.to(self._device, non_blocking=True)

    @property
    def num_clips_held(self) -> int:
        """Clips decoded so far of the blocks at hand; training waits if it stays near zero."""
        return self._blocks.num_clips

    def close(self) -> None:
        """Stop decoding; waits for the windows that are being decoded."""
        self._blocks.stop()
        self._assembler.stop()
        self._assembler.join()
        self._blocks.close()
        atexit.unregister(self.close)

    def _look_ahead(self) -> None:
        while len(self._ahead) <= _BATCHES_AHEAD:
            step = self._next_step + len(self._ahead)
            self._ahead.append(self._assembler.submit(functools.partial(self._assemble, step)))

    def _places(self, step: int) -> list[Place]:
        first = self._config.first_sample(step)
        return [
            self._blocks.plan.place(sample)
            for sample in range(first, first + self._config.batch_size)
        ]

    def _assemble(self, step: int) -> Tensor:
        config = self._config
        shape = (config.batch_size, config.frames, config.crop, config.crop, 3)
        batch_BTHWC = torch.empty(shape, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        target = batch_BTHWC.numpy()
        for index, place in enumerate(self._places(step)):
            target[index] = self._blocks.clip(place)
        return batch_BTHWC


class _Block:
    """Clips on their way: one future per visit."""

    def __init__(self, number: int, visits: list[Future[list[Clip]]], deal: list[int]) -> None:
        self.number = number
        self.visits = visits
        self.deal = deal
        self.spare: list[Clip] | None = None
        """All clips there are, to fill the places of visits that gave none."""


class _Blocks:
    """The current and the next block of each lane of this rank. Dealt from by one thread."""

    def __init__(self, videos: TrainingVideos, config: ClipsConfig, *, workers: int) -> None:
        self.plan = LanePlan(config, len(videos))
        self._videos = videos
        self._frames = config.frames
        self._stopped = threading.Event()
        self._decoder = VisitDecoder(videos, config, is_stopped=self._stopped.is_set)
        self._pool = Workers(workers, name="decode")
        self._lanes: dict[int, tuple[_Block, _Block]] = {}

    @property
    def num_clips(self) -> int:
        """Clips that are decoded and not forgotten."""
        visits = [visit for pair in list(self._lanes.values()) for b in pair for visit in b.visits]
        done = [visit for visit in visits if visit.done() and not visit.cancelled()]
        return sum(len(visit.result()) for visit in done if visit.exception() is None)

    def begin(self, places: list[Place]) -> None:
        """Order what the first batch needs, then what is needed afterwards, soonest first."""
        first = {place.lane: place for place in reversed(places)}
        current = {lane: self._order(lane, first[lane].block) for lane in sorted(first)}
        for lane in sorted(first, key=lambda lane: -first[lane].slot):
            self._lanes[lane] = current[lane], self._order(lane, first[lane].block + 1)

    def clip(self, place: Place) -> Clip:
        """The clip of a place; places of a lane in ascending order. Waits until it is decoded."""
        block, following = self._lanes[place.lane]
        while block.number < place.block:
            block, following = following, self._order(place.lane, following.number + 1)
            self._lanes[place.lane] = block, following
        visit, index = divmod(block.deal[place.slot], self.plan.clips_per_visit)
        try:
            clips = block.visits[visit].result()
            return clips[index] if clips else self._spare(place, block)
        except (StoppedError, CancelledError) as error:
            raise PipelineError("the clips were closed while a batch was waited for") from error

    def stop(self) -> None:
        """Let whatever waits or decodes end soon."""
        self._stopped.set()
        self._pool.stop()

    def close(self) -> None:
        """Wait for it, and end the decoding processes."""
        self._pool.join()
        self._videos.close()
        self._lanes.clear()

    def _order(self, lane: int, number: int) -> _Block:
        visits = [self._submit(visit) for visit in self.plan.visits(lane, number)]
        return _Block(number, visits, self.plan.deal(lane, number).tolist())

    def _submit(self, visit: int) -> Future[list[Clip]]:
        return self._pool.submit(functools.partial(self._visit, visit))

    def _visit(self, visit: int) -> list[Clip]:
        return self._decoder.clips(visit, self.plan.video(visit))

    def _spare(self, place: Place, block: _Block) -> Clip:
        if block.spare is None:
            block.spare = [clip for visit in block.visits for clip in visit.result()]
        if not block.spare:
            block.spare = next(self._substitutes(place.lane, block.number), [])
        if not block.spare:
            raise PipelineError(
                f"{self._videos.url} holds no video of {self._frames} frames to train on"
            )
        # Mirrored: it was dealt before, or will be.
        return np.flip(block.spare[block.deal[place.slot] % len(block.spare)], axis=2)

    def _substitutes(self, lane: int, number: int) -> Iterator[list[Clip]]:
        for visit in self.plan.substitutes(lane, number):
            clips = self._submit(visit).result()
            if clips:
                yield clips
