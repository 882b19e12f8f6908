"""Lossless tiny videos whose every pixel says where it is from: video, frame, column."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from videos import write_video

from pipelines.config import RunConfig, SourceConfig, StorageConfig
from pipelines.sources import Source, open_source
from pipelines.training_config import ClipsConfig
from pipelines.training_videos import TrainingVideos

SIDE = 48
FRAME_STEP = 4
VIDEO_STEP = 20


class Origin(NamedTuple):
    """Where a clip is from: video, the frames and columns at its two ends."""

    video: int
    first_frame: int
    last_frame: int
    left: int
    right: int

    @property
    def is_backwards(self) -> bool:
        return self.last_frame < self.first_frame

    @property
    def is_mirrored(self) -> bool:
        return self.right < self.left


def telling_frames(
    video: int, num_frames: int, *, width: int = SIDE, height: int = SIDE
) -> npt.NDArray[np.uint8]:
    """uint8 [T, H, W, 3]: red the video, green the frame, blue the column; all of them exact."""
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    frames[..., 0] = VIDEO_STEP * (video + 1)
    frames[..., 1] = (FRAME_STEP * np.arange(num_frames))[:, None, None]
    frames[..., 2] = np.arange(width)
    return frames


def write_telling(
    path: Path, video: int, num_frames: int, *, width: int = SIDE, height: int = SIDE
) -> Path:
    """A video of `telling_frames`, lossless."""
    frames = list(telling_frames(video, num_frames, width=width, height=height))
    return write_video(
        path, frames, codec="libx264rgb", pix_fmt="rgb24", codec_options={"crf": "0"}
    )


def origin(clip_THWC: npt.NDArray[np.uint8]) -> Origin:
    """Read where a clip is from, and check that it is one piece of it."""
    red, green, blue = (clip_THWC[..., channel].astype(int) for channel in range(3))
    assert len(np.unique(red)) == 1
    frames, columns = green[:, 0, 0] // FRAME_STEP, blue[0, 0]
    assert (green == green[:, :1, :1]).all()
    assert (blue == blue[:1, :1]).all()
    for line in (frames, columns):
        assert len(set(np.diff(line).tolist())) == 1
    assert abs(frames[1] - frames[0]) == 1
    return Origin(
        video=int(red[0, 0, 0]) // VIDEO_STEP - 1,
        first_frame=int(frames[0]),
        last_frame=int(frames[-1]),
        left=int(columns[0]),
        right=int(columns[-1]),
    )


def source_of(folder: Path | str, storage: StorageConfig | None = None) -> Source:
    """A listing of everything there."""
    return open_source(str(folder), SourceConfig(), storage or StorageConfig())


def videos_of(folder: Path) -> TrainingVideos:
    """The same, ready to be decoded."""
    return TrainingVideos(source_of(folder), RunConfig())


def small_config(**changes: object) -> ClipsConfig:
    """Clips of 5 frames of 16x16 from frames of 48x48, in blocks of two visits."""
    defaults: dict[str, object] = {
        "frames": 5, "crop": 16, "size": SIDE, "batch_size": 4, "num_lanes": 2,
        "block_videos": 2, "windows_per_visit": 1, "crops_per_window": 2, "source_share": 0.0,
        "memory": "never", "workers": 1,
    }  # fmt: skip
    return ClipsConfig(**{**defaults, **changes})  # type: ignore[arg-type]
