"""Whether a corpus, decoded, fits into memory: an estimate from a few of its videos."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from pipelines.config import SpaceConfig
from pipelines.decode import DecodeError, Segment
from pipelines.training_videos import TrainingVideos

__all__ = ["decoded_bytes", "free_bytes"]

_PROBES = 8
_SHARE = 0.5
"""Of free memory: the network, its optimizer and its activations want the rest."""


def decoded_bytes(videos: TrainingVideos, size: int) -> float | None:
    """Estimated bytes of all frames as RGB with a short side of ``size``.

    Opens a few videos, evenly spread over the listing, and scales up by file size.

    Returns:
        None if none of them says how long it is.

    Raises:
        PipelineError: If the store or the decoding process fails.
    """
    step = max(1, len(videos) // _PROBES)
    probed = [_probe(videos, index, size) for index in range(0, len(videos), step)]
    known = [pair for pair in probed if pair is not None]
    num_file_bytes = sum(file_bytes for file_bytes, _ in known)
    if num_file_bytes == 0:
        return None
    total = sum(item.size for item in videos.objects)
    return total * sum(num_bytes for _, num_bytes in known) / num_file_bytes


def _probe(videos: TrainingVideos, index: int, size: int) -> tuple[int, float] | None:
    """Bytes of the file, and of its frames."""
    first = Segment(share=0.0, num_windows=1)
    space = SpaceConfig(mode="keep", size=size)
    try:
        for _ in videos.frames(index, num_frames=1, space=space, segment=first):
            pass
    except DecodeError:
        # Named when it is decoded in earnest.
        return None
    facts = videos.facts
    if facts is None or facts.duration_s is None:
        return None
    num_bytes = facts.duration_s * facts.fps * facts.width * facts.height * 3
    return videos.objects[index].size, num_bytes


def free_bytes(device: torch.device, *, num_ranks: int) -> int:
    """What a decoded corpus may take: half of what is free on the device, and in main memory.

    Args:
        device: Where it is to be held; it passes through main memory in any case.
        num_ranks: Processes that share the main memory.
    """
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    free = int(found.group(1)) * 1024 / num_ranks if found else 0.0
    if device.type == "cuda":
        free = min(free, torch.cuda.mem_get_info(device)[0])
    return int(free * _SHARE)
