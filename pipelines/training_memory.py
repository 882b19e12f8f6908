"""Clips of a small corpus: decoded once, held as uint8 on the device, cut there batch by batch.

All frames lie in one flat tensor. A batch is one gather of pixel rows from it, whatever the sizes
of the videos: a dozen kernels, and nothing for the CPU to decode, copy or wait for.

Shapes: B clips, T frames, H rows, W columns, C = 3; N bytes of the corpus.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from pipelines.config import SpaceConfig
from pipelines.decode import DecodeError
from pipelines.errors import InterruptedRunError
from pipelines.training_config import ClipsConfig
from pipelines.training_draws import Purpose, uniform
from pipelines.training_videos import TrainingVideos

__all__ = ["MemoryClips", "decode_corpus"]

_PIECE_FRAMES = 33
_GLANCE_S = 1.0
_GLANCES_PER_LINE = 10
_SCALED_AT_ONCE = 1 << 26
"""Values (float32) scaled in one call: 256 MB."""


class MemoryClips:
    """A `ClipSource` over decoded videos.

    Every clip is drawn anew from the whole corpus: a video by its pixels, then start, place, mirror
    image and direction of time; a step, by ``zoom_share``, how much larger its clips are cut.

    Args:
        videos: uint8 ``[T, H, W, 3]`` each, on the CPU. Emptied, video by video, so that the corpus
            is never held twice.
        corpus_digest: Of the listing, see `TrainingVideos.digest`.

    Raises:
        ValueError: If no video holds a clip.
    """

    def __init__(
        self,
        videos: list[Tensor],
        config: ClipsConfig,
        *,
        device: str | torch.device,
        corpus_digest: str = "",
    ) -> None:
        self.kind = "memory"
        self.corpus_digest = corpus_digest
        self._device = torch.device(device)
        self._shapes_V3 = np.array([video.shape[:3] for video in videos], np.int64).reshape(-1, 3)
        self._corpus_N = self._lay_out(videos)
        self._choose(config)

    def recut(self, config: ClipsConfig) -> MemoryClips:
        """Other clips of the same frames in memory, for the next stage of a run.

        Args:
            config: Of the same ``size``: frames are not scaled again.

        Raises:
            ValueError: If no video holds such a clip.
        """
        other = copy.copy(self)
        other._choose(config)
        return other

    def _choose(self, config: ClipsConfig) -> None:
        """Draw from the videos that hold a clip."""
        self._config = config
        pixels_V = self._shapes_V3.prod(axis=1)
        first_V = np.cumsum(pixels_V) - pixels_V
        frames_V, sides_V = self._shapes_V3[:, 0], self._shapes_V3[:, 1:].min(axis=1)
        fits_V = (frames_V >= config.frames) & (sides_V >= config.crop)
        if not fits_V.any():
            raise ValueError(
                f"no video holds {config.frames} frames of {config.crop}x{config.crop}"
            )
        self._frames_V, self._height_V, self._width_V = self._shapes_V3[fits_V].T
        self._most_side = int(sides_V[fits_V].min())
        self._first_pixel_V = first_V[fits_V]
        # Over the chosen videos alone: a draw by pixels never meets another.
        self._end_pixel_V = np.cumsum(pixels_V[fits_V])

    def batch(self, step: int) -> Tensor:
        """See `ClipSource.batch`; any order of steps will do."""
        config = self._config
        chance, amount = uniform(config.seed, Purpose.STEP, step, 1, width=2)[0]
        side = min(round(config.crop * config.zoom(chance, amount)), self._most_side)
        draws = uniform(
            config.seed, Purpose.SAMPLE, config.first_sample(step), config.batch_size, width=6
        )
        batch_BTHWC = self._gather(draws, side)
        if side != config.crop:
            batch_BTHWC = _scale(batch_BTHWC, config.crop)
        mirrored = np.flatnonzero(draws[:, 4] < 0.5)
        if len(mirrored):
            index = self._to_device(mirrored)
            batch_BTHWC[index] = batch_BTHWC[index].flip(3)
        return batch_BTHWC

    def close(self) -> None:
        """Free the corpus."""
        self._corpus_N = torch.empty(0, dtype=torch.uint8)

    def _gather(self, draws: npt.NDArray[np.float64], side: int) -> Tensor:
        """Squares of ``side`` from the corpus, uint8 [B, T, side, side, 3]."""
        frames = self._config.frames
        pixel_B = (draws[:, 0] * self._end_pixel_V[-1]).astype(np.int64)
        video_B = np.searchsorted(self._end_pixel_V, pixel_B, side="right")
        height_B, width_B = self._height_V[video_B], self._width_V[video_B]
        start_B = (draws[:, 1] * (self._frames_V[video_B] - frames + 1)).astype(np.int64)
        y_B = (draws[:, 2] * (height_B - side + 1)).astype(np.int64)
        x_B = (draws[:, 3] * (width_B - side + 1)).astype(np.int64)
        backwards_B = draws[:, 5] < 0.5
        start_B += backwards_B * (frames - 1)
        first_B = self._first_pixel_V[video_B] + (start_B * height_B + y_B) * width_B + x_B
        frame_step_B = np.where(backwards_B, -1, 1) * height_B * width_B
        place = self._to_device(np.stack([first_B, frame_step_B, width_B]) * 3)
        first, frame_step, row_step = place[:, :, None, None]
        times = torch.arange(frames, device=self._device)[:, None]
        rows = torch.arange(side, device=self._device)
        row_BTH = first + frame_step * times + row_step * rows
        # A view of all runs as long as a row; the gather reads those that it is asked for.
        runs = self._corpus_N.unfold(0, 3 * side, 1)
        return runs[row_BTH].view(len(draws), frames, side, side, 3)

    def _lay_out(self, videos: list[Tensor]) -> Tensor:
        pixels_V = self._shapes_V3.prod(axis=1)
        corpus_N = torch.empty(int(pixels_V.sum()) * 3, dtype=torch.uint8, device=self._device)
        for index, first in enumerate((np.cumsum(pixels_V) - pixels_V).tolist()):
            flat = videos[index].reshape(-1)
            corpus_N[3 * first : 3 * first + len(flat)] = flat
            videos[index] = flat[:0].clone()
        videos.clear()
        return corpus_N

    def _to_device(self, numbers: npt.NDArray[np.int64]) -> Tensor:
        host = torch.from_numpy(numbers)
        if self._device.type != "cuda":
            return host
        # From pinned memory the copy does not wait for the work that is queued on the device.
        return host.pin_memory().to(self._device, non_blocking=True)


def _scale(batch_BTHWC: Tensor, crop: int) -> Tensor:
    """Down to ``crop``, with a bicubic filter as wide as it has to be."""
    num_clips, frames, side = batch_BTHWC.shape[:3]
    images = batch_BTHWC.flatten(0, 1).permute(0, 3, 1, 2)
    at_once = max(1, _SCALED_AT_ONCE // (3 * side * side))
    scaled = [_scale_some(part, crop) for part in images.split(at_once)]
    return torch.cat(scaled).permute(0, 2, 3, 1).reshape(num_clips, frames, crop, crop, 3)


def _scale_some(images_NCHW: Tensor, crop: int) -> Tensor:
    # Only the CPU knows how to scale bytes.
    is_cpu = images_NCHW.device.type == "cpu"
    images = images_NCHW if is_cpu else images_NCHW.float()
    images = functional.interpolate(images, size=(crop, crop), mode="bicubic", antialias=True)
    return images if is_cpu else images.round_().clamp_(0, 255).to(torch.uint8)


def decode_corpus(
    videos: TrainingVideos,
    config: ClipsConfig,
    *,
    workers: int,
    limit_bytes: int | None = None,
    say: Callable[[str], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Tensor] | None:
    """All frames of all videos, uint8 ``[T, H, W, 3]`` on the CPU, in listing order.

    Broken videos, and those shorter than a clip, are named in a warning and left out.

    Args:
        videos: The corpus; closed when this is done.
        workers: Decoding processes.
        limit_bytes: Give up beyond this. Too short videos never count, broken ones until they fail.
        say: Takes a line of progress now and then.
        should_stop: Asked every second or so.

    Returns:
        None if the corpus is larger than ``limit_bytes``.

    Raises:
        PipelineError: If the store or the decoding process fails.
        InterruptedRunError: If it was to stop.
    """
    decoding = _Decoding(videos, config, limit_bytes)
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        jobs = [pool.submit(decoding.video, index) for index in range(len(videos))]
        try:
            _wait(jobs, say, should_stop)
        finally:
            # After an error, or Ctrl-C, the others need not go on.
            decoding.is_over = True
    videos.close()
    decoded = [job.result() for job in jobs]
    if decoding.is_too_large:
        return None
    return [video for video in decoded if video is not None]


def _wait(
    jobs: Sequence[Future[Tensor | None]],
    say: Callable[[str], None],
    should_stop: Callable[[], bool],
) -> None:
    """Until all are done, or one has failed."""
    glances = 0
    while wait(jobs, _GLANCE_S, return_when=FIRST_EXCEPTION).not_done:
        if any(job.done() and job.exception() for job in jobs):
            return
        if should_stop():
            raise InterruptedRunError("stopped before anything was trained")
        glances += 1
        if glances % _GLANCES_PER_LINE == 0:
            say(f"decoded {sum(job.done() for job in jobs)} of {len(jobs)} videos into memory")


class _Decoding:
    """What the threads of `decode_corpus` share."""

    def __init__(
        self, videos: TrainingVideos, config: ClipsConfig, limit_bytes: int | None
    ) -> None:
        self._videos = videos
        self._config = config
        self._limit_bytes = limit_bytes
        self._num_bytes: dict[int, int] = {}
        self.is_over = False

    @property
    def is_too_large(self) -> bool:
        """Whether the videos that hold a clip exceed the limit, as far as they are decoded."""
        held = sum(list(self._num_bytes.values()))
        return self._limit_bytes is not None and held > self._limit_bytes

    def video(self, index: int) -> Tensor | None:
        """All its frames; None if it is left out or nobody wants it any more."""
        try:
            pieces = self._pieces(index)
        except DecodeError as error:
            self._num_bytes.pop(index, None)
            self._videos.leave_out(index, error.failure)
            return None
        if self.is_over:
            return None
        num_frames = sum(len(piece) for piece in pieces)
        if num_frames < self._config.frames:
            self._videos.leave_out_short(index, num_frames, self._config.frames)
            return None
        return torch.from_numpy(np.concatenate(pieces))

    def _pieces(self, index: int) -> Sequence[npt.NDArray[np.uint8]]:
        pieces: list[npt.NDArray[np.uint8]] = []
        if self.is_over:
            return pieces
        num_frames = num_bytes = 0
        for piece in self._videos.frames(
            index,
            num_frames=_PIECE_FRAMES,
            space=SpaceConfig(mode="keep", size=self._config.size),
        ):
            pieces.append(piece)
            num_frames += len(piece)
            num_bytes += piece.nbytes
            # One that is too short is left out: if it counted until that shows, whether a corpus
            # fits would depend on what the other threads hold at that moment.
            if num_frames >= self._config.frames:
                self._num_bytes[index] = num_bytes
                self.is_over |= self.is_too_large
            if self.is_over:
                break
        return pieces
