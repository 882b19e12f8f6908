"""The clips of a run's stages, and the clips it is measured on."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from infotok_core.clips import ClipSource
from infotok_core.recipe import Stage
from infotok_core.world import World
from pipelines.config import RunConfig, SpaceConfig
from pipelines.decode import DecodeError
from pipelines.errors import PipelineError
from pipelines.sources import Source
from pipelines.training_config import ClipsConfig
from pipelines.training_data import MemoryClips, choose_memory, open_clips
from pipelines.training_recipe import Recipe
from pipelines.training_videos import TrainingVideos

__all__ = ["StageClips", "held_out_clips"]

_WINDOW_FRAMES = 33


class StageClips:
    """Opens a corpus for one stage after the other; one held in memory is decoded only once.

    Attributes:
        kind: ``memory`` or ``stream``: the two give other clips, so a run keeps to one.
        corpus_digest: Of the listing.

    Args:
        open_source: Lists the corpus anew each time.
        kind: As a former start of the run chose; None: choose now.
        say: Takes progress while a corpus is decoded into memory.
        should_stop: Asked meanwhile.
    """

    def __init__(
        self,
        open_source: Callable[[], Source],
        recipe: Recipe,
        config: RunConfig,
        *,
        device: torch.device,
        world: World,
        kind: str | None,
        say: Callable[[str], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self._open_source, self._recipe, self._config = open_source, recipe, config
        self._device, self._world = device, world
        self._say, self._should_stop = say, should_stop
        for number in range(len(recipe.stages)):
            # Better said now than when the stages before have taken their hours.
            self._stage(number)
        self.corpus_digest = TrainingVideos(open_source(), config).digest
        self.kind = kind or self._choose()
        self._memory: MemoryClips | None = None
        self._current: ClipSource | None = None

    def open(self, number: int, *, start_step: int) -> ClipSource:
        """The clips of a stage; those of the stage before are closed.

        Raises:
            PipelineError: If no video gives a clip, or the store fails.
        """
        if self._current is not None and self._current is not self._memory:
            self._current.close()
        config = self._stage(number)
        if self.kind == "stream":
            self._current = self._clips(replace(config, memory="never"), start_step)
        else:
            try:
                self._current = self._held().recut(config)
            except ValueError as error:
                raise PipelineError(f"stage {number + 1}: {error}") from error
        return self._current

    def close(self) -> None:
        """End what decodes, free what is held."""
        for clips in (self._current, self._memory):
            if clips is not None:
                clips.close()

    def _held(self) -> MemoryClips:
        if self._memory is None:
            stages = self._recipe.stages
            shortest = min(stage.clip_frames for stage in stages)
            smallest = min(stage.crop for stage in stages)
            config = replace(self._stage(0), frames=shortest, crop=smallest, memory="always")
            clips = self._clips(config, 0)
            assert isinstance(clips, MemoryClips)
            self._memory = clips
        return self._memory

    def _clips(self, config: ClipsConfig, start_step: int) -> ClipSource:
        return open_clips(
            self._open_source(), config, self._config, device=self._device, start_step=start_step,
            say=self._say, should_stop=self._should_stop,
        )  # fmt: skip

    def _choose(self) -> str:
        chosen = choose_memory(
            self._open_source(), self._stage(0), self._config, device=self._device
        )
        # What does not fit one process is streamed by all.
        (streams,) = self._world.any([chosen == "never"], self._device)
        return "stream" if streams else "memory"

    def _stage(self, number: int) -> ClipsConfig:
        stage, data = self._recipe.stages[number], self._recipe.data
        try:
            return _clips_config(stage, self._recipe, self._world)
        except ValueError as error:
            raise PipelineError(f"stage {number + 1}, size {data.size}: {error}") from error


def _clips_config(stage: Stage, recipe: Recipe, world: World) -> ClipsConfig:
    data = recipe.data
    return ClipsConfig(
        frames=stage.clip_frames,
        crop=stage.crop,
        batch_size=world.share(stage.batch_size),
        seed=stage.seed,
        rank=world.rank,
        world_size=world.size,
        size=data.size,
        memory=data.memory,
        zoom_share=stage.zoom_share,
        zoom_max=stage.zoom_max,
        source_share=data.source_share,
        num_lanes=data.num_lanes,
        block_videos=data.block_videos,
        windows_per_visit=data.windows_per_visit,
        crops_per_window=data.crops_per_window,
    )


def held_out_clips(source: Source, config: RunConfig, *, size: int, most: int) -> list[Tensor]:
    """Full windows to measure on: uint8 ``[33, size, size, 3]`` from the middle of the frame.

    Args:
        source: Is listed here. Broken videos are named in a warning and left out.
        config: Its limits and storage apply.
        size: Short side of the frames.
        most: At most so many windows, the first ones of each of the videos, evenly; where the
            videos that are chosen hold none, those of the others.

    Raises:
        PipelineError: If there is none.
    """
    space = SpaceConfig(mode="crop", size=size)
    window = config.window.model_copy(update={"frames": _WINDOW_FRAMES, "tail": "drop"})
    config = config.model_copy(update={"window": window})
    videos = TrainingVideos(source, config)
    chosen = range(0, len(videos), -(-len(videos) // most))
    each = -(-most // len(chosen))
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = pool.map(lambda index: _windows(videos, index, space, each), chosen)
        clips = list(itertools.islice(itertools.chain.from_iterable(found), most))
    if not clips:
        others = (_windows(videos, i, space, most) for i in range(len(videos)) if i not in chosen)
        clips = list(itertools.islice(itertools.chain.from_iterable(others), most))
    videos.close()
    if not clips:
        raise PipelineError(f"{videos.url} holds no window of {_WINDOW_FRAMES} frames")
    return clips


def _windows(videos: TrainingVideos, index: int, space: SpaceConfig, most: int) -> list[Tensor]:
    clips: list[Tensor] = []
    try:
        for frames in videos.frames(index, num_frames=_WINDOW_FRAMES, space=space):
            if len(clips) == most:
                break
            if len(frames) == _WINDOW_FRAMES:
                clips.append(torch.from_numpy(frames.copy()))
    except DecodeError as error:
        videos.leave_out(index, error.failure)
        return []
    return clips
