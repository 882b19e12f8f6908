"""One visit to a video: a few windows from somewhere in it, cut into a fixed number of clips.

Shapes: T frames, H rows, W columns, C = 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from pipelines.config import SpaceConfig
from pipelines.decode import DecodeError, Patch, Segment
from pipelines.training_config import ClipsConfig
from pipelines.training_draws import Purpose, uniform
from pipelines.training_videos import TrainingVideos

__all__ = ["Clip", "StoppedError", "VisitDecoder", "cut_clip"]

Clip = npt.NDArray[np.uint8]
"""uint8 [T, H, W, 3]"""

_BLOCK = 16
"""Short sides that the decoder scales to are multiples of this."""


class StoppedError(Exception):
    """Nobody wants the clips of a visit any more."""


class VisitDecoder:
    """Makes the clips of visits, in any order and from any thread; equal visits give equal clips.

    Args:
        is_stopped: Asked between windows.
    """

    def __init__(
        self, videos: TrainingVideos, config: ClipsConfig, *, is_stopped: Callable[[], bool]
    ) -> None:
        self._videos = videos
        self._config = config
        self._is_stopped = is_stopped

    def clips(self, visit: int, video: int) -> list[Clip]:
        """``clips_per_visit`` clips, or none if the video is broken or too short.

        Args:
            visit: Decides place, size and augmentation.
            video: Index of the video it goes to.

        Raises:
            PipelineError: See `TrainingVideos.frames`.
            StoppedError: ``is_stopped`` said so.
        """
        config = self._config
        try:
            pieces = self._decode(visit, video)
        except DecodeError as error:
            self._videos.leave_out(video, error.failure)
            return []
        num_frames = sum(len(piece) for piece in pieces)
        if num_frames < config.frames:
            self._videos.leave_out_short(video, num_frames, config.frames)
            return []
        number, draws = config.clips_per_visit, self._clip_draws(visit)
        # Each clip starts in a stretch of its own: together they use all that was decoded.
        starts = [
            int((index + draw[0]) / number * (num_frames - config.frames + 1))
            for index, draw in enumerate(draws)
        ]
        return [
            cut_clip(pieces, start, frames=config.frames, crop=config.crop, draws=draw[1:])
            for start, draw in zip(starts, draws, strict=True)
        ]

    def _clip_draws(self, visit: int) -> npt.NDArray[np.float64]:
        number = self._config.clips_per_visit
        return uniform(self._config.seed, Purpose.CLIP, visit * number, number, width=5)

    def _decode(self, visit: int, video: int) -> list[Clip]:
        config = self._config
        draw = uniform(config.seed, Purpose.VISIT, visit, 1, width=6)[0]
        patch = None
        if draw[0] < config.source_share:
            patch = Patch(side=config.crop, across=float(draw[1]), down=float(draw[2]))
        size = self._size(config.zoom(draw[4], draw[5]))
        pieces = self._pieces(video, share=float(draw[3]), size=size, patch=patch)
        if sum(len(piece) for piece in pieces) < config.frames and draw[3]:
            # The container promised more than there is.
            pieces = self._pieces(video, share=0.0, size=size, patch=patch)
        return pieces

    def _size(self, zoom: float) -> int:
        """Scaling everything down shows the same as cutting more and scaling that down."""
        least = -(-self._config.crop // _BLOCK) * _BLOCK
        return max(round(self._config.size / zoom / _BLOCK) * _BLOCK, least)

    def _pieces(self, video: int, *, share: float, size: int, patch: Patch | None) -> list[Clip]:
        pieces: list[Clip] = []
        for piece in self._videos.frames(
            video,
            num_frames=self._config.frames,
            space=SpaceConfig(mode="keep", size=size),
            segment=Segment(share=share, num_windows=self._config.windows_per_visit),
            patch=patch,
        ):
            if self._is_stopped():
                raise StoppedError
            pieces.append(piece)
        return pieces


def cut_clip(
    pieces: Sequence[Clip], start: int, *, frames: int, crop: int, draws: npt.NDArray[np.float64]
) -> Clip:
    """Cut a clip out of pieces of a video that follow each other, perhaps turned.

    Args:
        pieces: uint8 ``[T, H, W, 3]`` of one size, H and W at least ``crop``.
        start: First frame, counted over all pieces.
        frames: Length of the clip; may reach into further pieces.
        crop: Rows and columns of the clip.
        draws: Uniform in [0, 1): row, column, mirrored below 1/2, backwards below 1/2.
    """
    height, width = pieces[0].shape[1:3]
    y, x = int(draws[0] * (height - crop + 1)), int(draws[1] * (width - crop + 1))
    clip_THWC = np.empty((frames, crop, crop, 3), np.uint8)
    target = clip_THWC[::-1] if draws[3] < 0.5 else clip_THWC
    target = target[:, :, ::-1] if draws[2] < 0.5 else target
    filled, skip = 0, start
    for piece in pieces:
        part = piece[skip : skip + frames - filled, y : y + crop, x : x + crop]
        target[filled : filled + len(part)] = part
        filled += len(part)
        skip = max(skip - len(piece), 0)
    assert filled == frames, "the pieces are shorter than start + frames"
    return clip_THWC
