"""Clips to train on, from any store, through the pipeline's own decoder.

`open_clips` is the door. A corpus whose frames fit into memory is decoded once and held there
(`training_memory`); any other is streamed (`training_stream`). Both give the clips of a step by its
number, so training resumes exactly, and at equal global batch the same ones on any number of ranks.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import torch
from torch import Tensor

from pipelines.config import RunConfig
from pipelines.decode import DecodeError, DecodeRequest, DecoderProcess
from pipelines.errors import PipelineError
from pipelines.sources import Source, source_url
from pipelines.storage import storage_options
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
    "decode_clips",
    "open_clips",
    "random_crops",
]

log = logging.getLogger(__name__)


def open_clips(
    source: Source,
    config: ClipsConfig,
    run_config: RunConfig,
    *,
    device: str | torch.device,
    start_step: int = 0,
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

    Raises:
        PipelineError: If no video gives a clip (streaming: with the first batch), or the store or
            the decoding process fails.
    """
    videos = TrainingVideos(source, run_config)
    workers = config.workers or max(1, (os.cpu_count() or 1) // config.world_size)
    device = torch.device(device)
    if config.memory == "always" or (config.memory == "auto" and _fits(videos, config, device)):
        limit = _budget(config, device) if config.memory == "auto" else None
        decoded = decode_corpus(videos, config, workers=workers, limit_bytes=limit)
        if decoded is not None:
            return _in_memory(decoded, videos, config, device)
        log.warning("%s does not fit into memory, it is streamed", videos.root)
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
    log.info("decoded corpus: %s bytes, budget %d", needed, budget)
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
        raise PipelineError(f"{videos.root}: {error}") from error


def decode_clips(source: Source, config: RunConfig, *, workers: int) -> list[Tensor]:
    """All full windows of all videos, uint8 ``[T, H, W, 3]`` on the CPU, in listing order.

    Videos that do not decode are named in a warning and left out.

    Args:
        config: Its window, space and limits apply; tails are dropped.
        workers: Decoding processes.

    Raises:
        PipelineError: If there is no window at all.
    """
    window = config.window.model_copy(update={"tail": "drop"})
    config = config.model_copy(update={"window": window})
    uris = sorted(item.uri for item in source.objects)
    with ThreadPoolExecutor(workers) as pool:
        videos = pool.map(lambda uri: list(_windows(source.root, uri, config)), uris)
        clips = [clip for video in videos for clip in video]
    if not clips:
        raise PipelineError(f"{source.root} holds no window of {window.frames} frames to train on")
    return clips


def _windows(root: str, uri: str, config: RunConfig) -> Iterator[Tensor]:
    url = source_url(root, uri)
    request = DecodeRequest(
        url=url,
        storage_options=storage_options(url, config.source_storage),
        size=None,
        window=config.window,
        space=config.space,
        limits=config.limits,
    )
    with DecoderProcess() as decoder:
        try:
            for window in decoder.windows(request):
                yield torch.from_numpy(window.frames_THWC.copy())
        except DecodeError as error:
            log.warning("%s is left out: %s (%s)", uri, error.failure.reason, error.failure.detail)


def random_crops(
    clips: Sequence[Tensor],
    *,
    frames: int,
    crop: int,
    batch_size: int,
    device: str | torch.device,
    seed: int,
) -> Callable[[], Tensor]:
    """A sampler for `infotok_core.training.train`.

    Each call gives uint8 ``[batch_size, frames, crop, crop, 3]`` on ``device``: a random clip
    (larger ones are likelier), start, place, horizontal flip and direction of time.

    Raises:
        ValueError: If no clip is large enough.
    """
    large = [
        clip.to(device)
        for clip in clips
        if clip.shape[0] >= frames and min(clip.shape[1:3]) >= crop
    ]
    if not large:
        raise ValueError(f"no clip holds {frames} frames of {crop}x{crop}")
    weights = torch.tensor([float(clip[..., 0].numel()) for clip in large])
    generator = torch.Generator().manual_seed(seed)

    def uniform(limit: int) -> int:
        return int(torch.randint(limit + 1, (), generator=generator))

    def sample() -> Tensor:
        chosen = torch.multinomial(weights, batch_size, replacement=True, generator=generator)
        batch: list[Tensor] = []
        for index in chosen.tolist():
            clip = large[index]
            t, y, x = (
                uniform(size - wanted)
                for size, wanted in zip(clip.shape[:3], (frames, crop, crop), strict=True)
            )
            piece = clip[t : t + frames, y : y + crop, x : x + crop]
            turns = [dim for dim in (0, 2) if uniform(1)]
            batch.append(piece.flip(turns) if turns else piece)
        return torch.stack(batch)

    return sample
