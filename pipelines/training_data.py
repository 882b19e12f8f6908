"""Clips to train on: decoded once by the pipeline's own decoder, kept as uint8, cropped at random.

Made for corpora of some gigabytes of frames, which a modern GPU holds: every crop is then a slice
of its memory and costs the CPU nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from pipelines.config import RunConfig
from pipelines.decode import DecodeError, DecodeRequest, DecoderProcess
from pipelines.errors import PipelineError
from pipelines.sources import Source, source_url
from pipelines.storage import storage_options

__all__ = ["decode_clips", "random_crops"]

log = logging.getLogger(__name__)


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
