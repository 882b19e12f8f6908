"""Windows of many units, from many threads, through one tokenizer in batches of one size.

Results must not depend on which windows happen to share a batch. On a CPU windows run one at a
time. On a GPU a batch always has the same padded size and one shape, across units, videos and
callers. The last bits of a kernel may depend on the *place* in a batch (of the published network 10
tokens in a million do): so a window has a place of its own, by its video and number, and a batch
takes for each place the window that has waited longest for it.

There is no thread of its own: of the callers that wait, one at a time drives the tokenizer, for
all of them, a batch each time.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from threading import Condition, Lock
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infotok_core.config import TokenizerConfig
from infotok_core.shape import TokenShape
from infotok_core.tokenizer import Analysis, valid_latent_frames
from pipelines.pinned_upload import PinnedUpload
from pipelines.records import DecodedUnit
from schemas.windows import WindowAnalysis

__all__ = ["VideoTokenizer", "WindowBatches"]

log = logging.getLogger(__name__)


class VideoTokenizer(Protocol):
    """What pass one needs of a tokenizer; every `infotok_core.tokenizer.VideoCodec` is one."""

    fingerprint: str
    device: torch.device

    @property
    def config(self) -> TokenizerConfig | TokenShape:
        """Compression and vocabulary."""
        ...

    def analyse(self, video_u8_BTHWC: Tensor, /) -> Analysis:
        """Full-rate codes and per-token information of a batch of windows."""
        ...


class _Asked:
    """A unit on its way: what is known of its windows, or why it failed."""

    __slots__ = ("error", "unit", "windows")

    def __init__(self, unit: DecodedUnit) -> None:
        self.unit = unit
        self.windows: dict[int, WindowAnalysis] = {}
        self.error: Exception | None = None

    @property
    def is_done(self) -> bool:
        return self.error is not None or len(self.windows) == len(self.unit.spans)


class _Window(NamedTuple):
    asked: _Asked
    position: int
    frames_THWC: NDArray[np.uint8]

    def place(self, batch_size: int) -> int:
        """Where in a batch it belongs; windows that follow each other have places that do."""
        unit = self.asked.unit
        # From the video's id, or the first places would be those that all videos want.
        return (int(unit.video, 16) + unit.spans[self.position].window_index) % batch_size


class _Launched(NamedTuple):
    """A batch on its way: its windows by place, results on the host once ``arrived``."""

    batch: Mapping[int, _Window]
    codes_Bthw: Tensor
    information_Bthw: Tensor
    arrived: torch.cuda.Event | None


class WindowBatches:
    """Analyses windows; any thread may call.

    Args:
        batch_size: Windows per GPU batch; where there are too few it is padded. Halved, for good
            and for windows of this shape, when the GPU runs out of memory.
        fixed_places: False puts a window wherever there is room.
    """

    def __init__(
        self, tokenizer: VideoTokenizer, *, batch_size: int, fixed_places: bool = True
    ) -> None:
        self._tokenizer = tokenizer
        self._fixed_places = fixed_places
        self._batch_size = batch_size if tokenizer.device.type != "cpu" else 1
        self._halved: dict[tuple[int, ...], int] = {}
        self._gpu = tokenizer.device.type == "cuda"
        self._upload = PinnedUpload(tokenizer.device) if self._gpu else _batch_of
        self._turn = Condition()
        self._driven = False
        self._ahead: _Launched | None = None
        self._lost: BaseException | None = None
        self._queues = Lock()
        self._waiting: list[_Window] = []

    def analyse(
        self, units: Sequence[DecodedUnit]
    ) -> Iterator[Sequence[WindowAnalysis] | Exception]:
        """For each unit, in order and as soon as it is through: its windows, or why it failed.

        All of them are asked for at once, by the call. A batch that fails is tried again unit by
        unit, so that each is judged alone.

        Raises:
            torch.AcceleratorError: The GPU is lost to this process, for all callers.
        """
        asked = [_Asked(unit) for unit in units]
        with self._queues:
            self._waiting += [
                _Window(one, index, one.unit.frames_NTHWC[index])
                for one in asked
                for index in range(len(one.unit.spans))
            ]
        return map(self._result, asked)

    def _result(self, asked: _Asked) -> Sequence[WindowAnalysis] | Exception:
        with self._turn:
            while not asked.is_done:
                if self._lost is not None:
                    raise self._lost
                if self._driven:
                    self._turn.wait()
                    continue
                self._driven = True
                try:
                    self._drive()
                finally:
                    self._driven = False
                    self._turn.notify_all()
        if asked.error is not None:
            return asked.error
        return [asked.windows[index] for index in range(len(asked.unit.spans))]

    def _drive(self) -> None:
        self._turn.release()
        try:
            self._step()
        except BaseException as error:
            # What was on the GPU, of whomever, is in nobody's hands any more.
            self._lost = error
            raise
        finally:
            self._turn.acquire()

    def _step(self) -> None:
        """Hand the GPU a batch, then sort the one before, which was computed meanwhile."""
        batch = self._take()
        launched = self._launch(batch) if batch else None
        before, self._ahead = self._ahead, launched
        if before is not None:
            self._collect(before)

    def _take(self) -> Mapping[int, _Window]:
        """The windows that have waited longest, of one shape.

        Nothing while they are too few for a batch and the GPU has another one to go on with.
        """
        with self._queues:
            waiting = [window for window in self._waiting if window.asked.error is None]
            batch = self._placed(waiting)
            if batch and len(batch) < self._size_of(batch) and self._ahead is not None:
                batch = {}
            taken = set(map(id, batch.values()))
            self._waiting = [window for window in waiting if id(window) not in taken]
        return batch

    def _placed(self, windows: Sequence[_Window]) -> Mapping[int, _Window]:
        """As many of them, of the shape of the first, as go into one batch together."""
        shape = windows[0].frames_THWC.shape if windows else ()
        size = self._halved.get(shape, self._batch_size)
        same = [window for window in windows if window.frames_THWC.shape == shape]
        if not self._fixed_places:
            return dict(enumerate(same[:size]))
        batch: dict[int, _Window] = {}
        for window in same:
            batch.setdefault(window.place(size), window)
        return batch

    def _size_of(self, batch: Mapping[int, _Window]) -> int:
        shape = next(iter(batch.values())).frames_THWC.shape
        return self._halved.get(shape, self._batch_size)

    def _launch(self, batch: Mapping[int, _Window]) -> _Launched | None:
        """None if it failed: then its windows wait again, or their units are settled."""
        spare = next(iter(batch.values()))
        frames = [batch.get(place, spare).frames_THWC for place in range(self._size_of(batch))]
        try:
            return self._launched(batch, self._tokenizer.analyse(self._upload(frames)))
        except torch.cuda.OutOfMemoryError:
            self._halve(batch)
        except torch.AcceleratorError:
            # The GPU's context is lost with it: only another process can go on.
            raise
        except Exception as error:  # noqa: BLE001  whatever a network raises is its units' failure
            self._failed(batch, error)
        return None

    def _halve(self, batch: Mapping[int, _Window]) -> None:
        if self._gpu:
            torch.cuda.empty_cache()
        size, shape = self._size_of(batch), next(iter(batch.values())).frames_THWC.shape
        if size == 1:
            self._failed(batch, MemoryError("the GPU cannot hold one window of this shape"))
            return
        self._halved[shape] = size // 2
        log.warning("GPU out of memory: batches of %d of %s from now on", size // 2, shape)
        with self._queues:
            self._waiting = [*batch.values(), *self._waiting]

    def _launched(self, batch: Mapping[int, _Window], analysis: Analysis) -> _Launched:
        waiting = len(self._waiting)
        log.debug("%d windows in %d places; %d wait", len(batch), self._size_of(batch), waiting)
        codes_Bthw = analysis.codes_Bthw.to("cpu", non_blocking=True)
        information_Bthw = analysis.information_Bthw.to("cpu", non_blocking=True)
        arrived: torch.cuda.Event | None = None
        if self._gpu:
            with torch.cuda.device(self._tokenizer.device):
                # Blocking: a thread that waits must not keep a core from the decoders.
                arrived = torch.cuda.Event(blocking=True)
                arrived.record()
        return _Launched(batch, codes_Bthw, information_Bthw, arrived)

    def _collect(self, launched: _Launched) -> None:
        try:
            self._sort(launched)
        except torch.AcceleratorError:
            raise
        except Exception as error:  # noqa: BLE001  of a network whose answer is none
            self._failed(launched.batch, error)

    def _sort(self, launched: _Launched) -> None:
        """Give each window what was found for it.

        Raises:
            ValueError: If that are not tokens of a window.
        """
        if launched.arrived is not None:
            launched.arrived.synchronize()
        codes = launched.codes_Bthw.numpy().astype(np.uint16)
        information = _half(launched.information_Bthw.numpy())
        if not max(launched.batch) < codes.shape[0] == information.shape[0]:
            counts = [max(launched.batch) + 1, codes.shape[0], information.shape[0]]
            raise ValueError(f"windows, their codes and their information are {counts}")
        temporal = self._tokenizer.config.temporal_compression
        for place, (asked, position, _) in launched.batch.items():
            span = asked.unit.spans[position]
            valid = valid_latent_frames(span.num_frames, temporal)
            asked.windows[position] = WindowAnalysis(
                span=span, codes=codes[place, :valid], information=information[place, :valid]
            )

    def _failed(self, batch: Mapping[int, _Window], error: Exception) -> None:
        """Judge the units of a batch that failed: alone, a unit can only fail itself."""
        units = {id(window.asked): window.asked for window in batch.values()}
        log.error("analysing windows of %d units failed", len(units), exc_info=error)
        for asked in units.values():
            if len(units) == 1:
                asked.error = error
                return
            own = [window for window in batch.values() if window.asked is asked]
            while own:
                part = self._placed(own)
                placed = set(map(id, part.values()))
                own = [window for window in own if id(window) not in placed]
                alone = self._launch(part)
                if alone is not None:
                    self._collect(alone)


def _batch_of(frames: Sequence[NDArray[np.uint8]]) -> Tensor:
    if len(frames) > 1:
        return torch.from_numpy(np.stack(frames))
    with warnings.catch_warnings():
        # Read-only, because it lies in Ray's object store; a tokenizer only reads.
        warnings.simplefilter("ignore")
        return torch.from_numpy(frames[0]).unsqueeze(0)


def _half(information: NDArray[np.float32]) -> NDArray[np.float16]:
    # Rounded once, here: selection only ever sees the stored float16 values, so that reusing pass
    # one and computing it again agree.
    with np.errstate(over="ignore"):
        return information.astype(np.float16)
