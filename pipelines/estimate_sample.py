"""Some videos decoded whole, some of their windows analysed: what an estimate is made from.

Shapes: N windows, T frames, H rows, W columns, C = 3.
"""

from __future__ import annotations

import functools
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from infotok_core.shape import TokenShape
from infotok_core.tokenizer import valid_latent_frames
from pipelines.analyser import UnitAnalyser, VideoTokenizer
from pipelines.config import RunConfig
from pipelines.decode import DecodedWindow, DecodeError, DecodeRequest, DecoderProcess
from pipelines.records import DecodedUnit
from pipelines.sorted_listing import ListedObject
from pipelines.sources import source_url
from pipelines.storage import storage_options
from schemas.failures import Failure, FailureReason, FailureStage
from schemas.ids import WINDOWS_PER_UNIT, video_id
from schemas.units import encode_unit
from schemas.windows import StreamFacts, WindowAnalysis, WindowSpan

__all__ = ["WINDOWS_HELD", "SampleAnalysis", "SampledVideo", "decode_sample"]

WINDOWS_HELD = 32
"""When so many windows wait they are analysed: of 33x256x256 each is 6.5 MB."""

_TOO_SHORT = Failure(
    reason=FailureReason.TOO_SHORT, stage=FailureStage.DECODE, detail="holds no window"
)

Clock = Callable[[], float]


@dataclass(slots=True, kw_only=True)
class SampledVideo:
    """What one video of the sample came to.

    Attributes:
        facts: None if it was never opened.
        windows: All of its windows; 0 if it would be set aside.
        positions: Their tokens at full rate.
        duration_s: From its first to its last sampled frame.
        decode_s: Seconds that one decoding process was busy.
        failure: Why it would be set aside, and in which words.
        kept: Windows whose frames wait to be analysed.
        analysed: What the tokenizer said of them.
        stored_bytes: Of these in unit objects, without what each object has once.
    """

    item: ListedObject
    facts: StreamFacts | None = None
    windows: int = 0
    positions: int = 0
    duration_s: float = 0.0
    decode_s: float = 0.0
    failure: Failure | None = None
    kept: list[DecodedWindow] = field(default_factory=list)
    analysed: list[WindowAnalysis] = field(default_factory=list)
    stored_bytes: int = 0

    @property
    def video(self) -> str:
        """Its id."""
        return video_id(self.item[0])

    @property
    def share(self) -> float:
        """How often the analysed windows would have to be there to be all; 0 if there are none."""
        analysed = sum(window.codes.size for window in self.analysed)
        return self.positions / analysed if analysed else 0.0

    @property
    def unit_bytes(self) -> float:
        """Of the unit objects that would hold all of its windows."""
        if not self.analysed:
            return 0.0
        return (
            -(-self.windows // WINDOWS_PER_UNIT) * _around_unit() + self.share * self.stored_bytes
        )

    def set_aside(self, failure: Failure) -> None:
        """Nothing of it will be in the corpus."""
        self.failure = failure
        self.windows = self.positions = self.stored_bytes = 0
        self.kept, self.analysed, self.duration_s = [], [], 0.0


def decode_sample(
    items: Sequence[ListedObject],
    config: RunConfig,
    *,
    root: str,
    shape: TokenShape,
    windows_per_video: int,
    clock: Clock,
) -> Iterator[SampledVideo]:
    """Decode videos whole, one after the other, and keep frames of some windows of each.

    Which ones follows from the video's id, so that an estimate can be repeated.
    """
    with DecoderProcess() as decoder:
        for item in items:
            video = SampledVideo(item=item)
            url = source_url(root, item[0])
            request = DecodeRequest(
                url=url,
                storage_options=storage_options(url, config.source_storage),
                size=item[1],
                window=config.window,
                space=config.space,
                limits=config.limits,
            )
            began = clock()
            try:
                _decode(video, decoder.windows(request), shape, windows_per_video)
            except DecodeError as error:
                video.set_aside(error.failure)
            else:
                video.facts = decoder.facts
                if not video.windows:
                    video.set_aside(_TOO_SHORT)
            video.decode_s = clock() - began
            yield video


def _decode(
    video: SampledVideo, windows: Iterator[DecodedWindow], shape: TokenShape, most: int
) -> None:
    choice = random.Random(video.video)
    start_s = None
    for window in windows:
        span = window.span
        start_s = span.start_time_s if start_s is None else start_s
        video.duration_s = span.end_time_s - start_s
        video.positions += _positions(window, shape)
        video.windows += 1
        if len(video.kept) < most:
            video.kept.append(window)
        elif (place := choice.randrange(video.windows)) < most:
            video.kept[place] = window


def _positions(window: DecodedWindow, shape: TokenShape) -> int:
    _, height, width, _ = window.frames_THWC.shape
    latent_frames = valid_latent_frames(window.span.num_frames, shape.temporal_compression)
    _, rows, columns = shape.grid(len(window.frames_THWC), height, width)
    return latent_frames * rows * columns


class SampleAnalysis:
    """Analyses what was kept of videos, in full batches, and knows how long a window takes."""

    def __init__(self, tokenizer: VideoTokenizer, config: RunConfig, *, clock: Clock) -> None:
        self._batch = config.tokenizer.batch_size if tokenizer.device.type != "cpu" else 1
        # Wherever there is room: only then are batches full, of so few windows.
        self._analyser = UnitAnalyser(tokenizer, batch_size=self._batch, fixed_places=False)
        self._clock = clock
        self._seconds = 0.0
        self._slots = 0

    @property
    def seconds_per_window(self) -> float | None:
        """None if nothing was kept."""
        return self._seconds / self._slots if self._slots else None

    def add(self, videos: Sequence[SampledVideo]) -> None:
        """Fill these videos, and free their frames."""
        units = [(video, unit) for video in videos for unit in _units(video)]
        if units and not self._slots:
            # The first batch warms up, and is not counted.
            list(self._analyser.windows([_first_window(units[0][1])]))
        while units:
            part: list[tuple[SampledVideo, DecodedUnit]] = []
            while units and sum(len(unit.spans) for _, unit in part) < WINDOWS_HELD:
                part.append(units.pop(0))
            self._add_units(part)
        for video in videos:
            video.kept = []

    def _add_units(self, part: Sequence[tuple[SampledVideo, DecodedUnit]]) -> None:
        began = self._clock()
        units = [unit for _, unit in part]
        results = [
            self._analyser.encode(unit, windows)
            for unit, windows in zip(units, self._analyser.windows(units), strict=True)
        ]
        self._seconds += self._clock() - began
        self._slots += _slots(units, self._batch)
        for (video, _), result in zip(part, results, strict=True):
            if result.failure is not None:
                video.set_aside(result.failure)
            elif video.failure is None:
                video.analysed += result.windows
                video.stored_bytes += len(result.data) - _around_unit()


def _units(video: SampledVideo) -> Iterator[DecodedUnit]:
    by_unit: dict[int, list[DecodedWindow]] = defaultdict(list)
    for window in sorted(video.kept, key=lambda window: window.span.window_index):
        by_unit[window.span.window_index // WINDOWS_PER_UNIT].append(window)
    for unit_index, windows in by_unit.items():
        yield DecodedUnit(
            video=video.video,
            unit_index=unit_index,
            path="",
            spans=tuple(window.span for window in windows),
            frames_NTHWC=np.stack([window.frames_THWC for window in windows]),
        )


@functools.cache
def _around_unit() -> int:
    """Bytes of a unit object that holds next to nothing: one window of one token."""
    span = WindowSpan(
        window_index=0, start_frame=0, num_frames=1, start_time_s=0.0, end_time_s=0.0
    )  # fmt: skip
    codes, information = np.zeros((1, 1, 1), np.uint16), np.zeros((1, 1, 1), np.float16)
    window = WindowAnalysis(span=span, codes=codes, information=information)
    return len(encode_unit([window], video="0" * 32, unit_index=0, tokenizer="0" * 64))


def _first_window(unit: DecodedUnit) -> DecodedUnit:
    return DecodedUnit(
        video=unit.video,
        unit_index=unit.unit_index,
        path="",
        spans=unit.spans[:1],
        frames_NTHWC=unit.frames_NTHWC[:1],
    )


def _slots(units: Sequence[DecodedUnit], batch: int) -> int:
    """Windows that the GPU computed, those of padded batches included."""
    by_shape: dict[tuple[int, ...], int] = defaultdict(int)
    for unit in units:
        by_shape[unit.frames_NTHWC.shape[1:]] += len(unit.spans)
    return sum(-(-count // batch) * batch for count in by_shape.values())
