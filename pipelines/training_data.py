"""Clips to train on, from any store, through the pipeline's own decoder.

`open_clips` is the door. A corpus whose frames fit into memory is decoded once and held there
(`training_memory`); any other is streamed (`training_stream`). Both give the clips of a step by its
number, so training resumes exactly, and at equal global batch the same ones on any number of ranks.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from pipelines.config import RunConfig
from pipelines.errors import PipelineError
from pipelines.sources import Source
from pipelines.training_config import ClipsConfig
from pipelines.training_memory import MemoryClips, decode_corpus
from pipelines.training_size import decoded_bytes, free_bytes
from pipelines.training_stream import StreamClips
from pipelines.training_videos import TrainingVideos

__all__ = [
    "ClipsConfig",
    "MemoryClips",
    "StreamClips",
    "choose_memory",
    "open_clips",
]

log = logging.getLogger(__name__)


def open_clips(
    source: Source,
    config: ClipsConfig,
    run_config: RunConfig,
    *,
    device: str | torch.device,
    start_step: int = 0,
    say: Callable[[str], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> MemoryClips | StreamClips:
    """The clips of a corpus for one rank: a `ClipSource`, with ``kind`` and ``corpus_digest``.

    A run and its resume see the same clips if both find the same ``corpus_digest`` (the listing)
    and are the same ``kind``; both are worth keeping with a checkpoint.

    Args:
        source: Is listed here.
        config: What a clip is; ``memory`` decides the kind.
        run_config: Its limits, source storage and ``window.fps`` apply.
        device: Where batches are wanted.
        start_step: The first step that will be asked for.
        say: Takes progress while a corpus is decoded into memory.
        should_stop: Asked meanwhile.

    Raises:
        InterruptedRunError: If it was to stop while a corpus was decoded.
        PipelineError: If no video gives a clip (streaming: with the first batch), or the store or
            the decoding process fails.
    """
    videos = TrainingVideos(source, run_config)
    workers = config.workers or max(1, (os.cpu_count() or 1) // config.world_size)
    device = torch.device(device)
    if config.memory == "always" or (config.memory == "auto" and _fits(videos, config, device)):
        limit = _budget(config, device) if config.memory == "auto" else None
        decoded = decode_corpus(
            videos, config, workers=workers, limit_bytes=limit, say=say, should_stop=should_stop
        )
        if decoded is not None:
            return _in_memory(decoded, videos, config, device)
        log.warning("%s does not fit into memory, it is streamed", videos.url)
    return StreamClips(videos, config, workers=workers, device=device, start_step=start_step)


def choose_memory(
    source: Source, config: ClipsConfig, run_config: RunConfig, *, device: str | torch.device
) -> Literal["always", "never"]:
    """What ``memory = auto`` comes to, to be decided once for all ranks and all resumes of a run.

    Args:
        source: Is listed here, so `open_clips` needs another one.
        config: ``memory`` is given back unless it is ``auto``.
        run_config: As for `open_clips`.
        device: As for `open_clips`.
    """
    if config.memory != "auto":
        return config.memory
    videos = TrainingVideos(source, run_config)
    return "always" if _fits(videos, config, torch.device(device)) else "never"


def _fits(videos: TrainingVideos, config: ClipsConfig, device: torch.device) -> bool:
    try:
        needed = decoded_bytes(videos, config.size)
    finally:
        videos.close()
    budget = _budget(config, device)
    fits = needed is not None and needed <= budget
    log.debug("decoded corpus: %s bytes, budget %d", needed, budget)
    return fits


def _budget(config: ClipsConfig, device: torch.device) -> int:
    if config.memory_bytes is not None:
        return config.memory_bytes
    return free_bytes(device, num_ranks=config.world_size)


def _in_memory(
    decoded: list[Tensor], videos: TrainingVideos, config: ClipsConfig, device: torch.device
) -> MemoryClips:
    try:
        return MemoryClips(decoded, config, device=device, corpus_digest=videos.digest)
    except ValueError as error:
        raise PipelineError(f"{videos.url}: {error}") from error
