"""How training clips are drawn from a corpus, as frozen, validated data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["ClipsConfig"]

_LONGEST = 193


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipsConfig:
    """What a clip is and which clips a step gets.

    Clip g = step * world_size * batch_size + rank * batch_size + i is the same whatever
    ``batch_size`` and ``world_size`` are, as long as their product is: one process with a batch of
    64 sees at each step what two with a batch of 32 see together.

    Raises:
        ValueError: If the numbers do not fit together.
    """

    frames: int
    """Frames per clip, 1 .. 193."""
    crop: int
    """Rows and columns of a clip, at most ``size``."""
    batch_size: int
    """Clips per step and rank."""
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    size: int = 256
    """Short side that videos are scaled to before they are cropped; a multiple of 16."""
    memory: Literal["auto", "always", "never"] = "auto"
    """Decode the corpus once and hold its frames on the device, or stream it. ``auto`` estimates
    what it needs. The two give other clips, and free memory may be another when a run is resumed:
    let `training_data.choose_memory` decide once, for all ranks, and keep its answer with the run,
    or set ``memory_bytes``."""
    memory_bytes: int | None = None
    """What a decoded corpus may take under ``auto``; None: half of what is free."""
    zoom_share: float = 0.0
    """Probability that a clip is cut ``zoom_max`` times larger at most, and scaled down."""
    zoom_max: float = 2.0
    """>= 1; a cut is never larger than ``size``."""
    source_share: float = 0.1
    """Probability that clips are cut straight from the source's own resolution (the paper's). A
    corpus in memory has none to cut from."""
    num_lanes: int = 16
    """Streaming: independent sequences of videos; at most one per clip of a step is used. A rank
    decodes only its own lanes if ``world_size`` divides them; otherwise neighbours both decode the
    lane between them."""
    block_videos: int = 4
    """Streaming: visits to a video whose clips are shuffled among each other, per lane."""
    windows_per_visit: int = 8
    """Streaming: at most so many clips' worth of a video is decoded at a time, from a random place,
    so that long videos do not flood a block. What lies before that place is decoded in vain: fewer
    windows make a clip dearer, half a long video for each visit."""
    crops_per_window: int = 1
    """Streaming: clips cut from each clip's worth of frames. More of them cost hardly any decoding,
    and make what lies in a block more alike."""
    workers: int | None = None
    """Decoding processes of this rank; None: the machine's cores, divided among the ranks. Changes
    no clip."""

    def __post_init__(self) -> None:
        counts = (
            "batch_size", "world_size", "num_lanes", "block_videos", "windows_per_visit",
            "crops_per_window", "crop",
        )  # fmt: skip
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 1 <= self.frames <= _LONGEST:
            raise ValueError(f"frames must be 1 .. {_LONGEST}, not {self.frames}")
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank {self.rank} is not one of {self.world_size}")
        if self.size % 16:
            raise ValueError(f"size must be a multiple of 16, not {self.size}")
        if self.crop > self.size:
            raise ValueError(f"a crop of {self.crop} is larger than frames of size {self.size}")
        for name in ("zoom_share", "source_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], not {getattr(self, name)}")
        if self.zoom_max < 1:
            raise ValueError(f"zoom_max must be at least 1, not {self.zoom_max}")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers must be at least 1, not {self.workers}")

    @property
    def global_batch(self) -> int:
        """Clips of a step over all ranks."""
        return self.batch_size * self.world_size

    @property
    def clips_per_visit(self) -> int:
        """Streaming: clips that a visit to a video gives, always."""
        return self.windows_per_visit * self.crops_per_window

    def first_sample(self, step: int) -> int:
        """Number of this rank's first clip at a step; the others follow it."""
        return step * self.global_batch + self.rank * self.batch_size

    def zoom(self, chance: float, amount: float) -> float:
        """How many times larger than ``crop`` to cut, from two uniform numbers."""
        most = min(self.zoom_max, self.size / self.crop)
        return 1 + amount * (most - 1) if chance < self.zoom_share else 1.0
