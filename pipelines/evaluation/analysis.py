"""Codes and information of every clip: one encoder and one decoder pass each, and no more.

A latent router, if there is one to compare, takes a further encoder pass, which is timed.

36 KB per clip of 33 x 256 x 256 are kept; the frames are decoded again when they are compared.

Shapes: B clips, T frames, H rows, W columns, C = 3; lower-case t, h, w the latent grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infotok_core.tokenizer import Analysis
from pipelines.analyser import VideoTokenizer
from pipelines.decode import DecodedWindow, DecodeError
from pipelines.errors import PipelineError
from pipelines.evaluation.clips import ClipSource, Part, Sampler
from pipelines.evaluation.settings import (
    Clocks,
    EvaluatedTokenizer,
    EvaluationConfig,
    Say,
    Timed,
    timed,
)
from pipelines.voice import Voice
from schemas.evaluation import LeftOut
from schemas.units import window_sum
from schemas.windows import WindowSpan

__all__ = ["Clip", "Predicted", "analyse_clips"]

_Key = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predicted:
    """What a latent router says of a window, without a decoder pass."""

    information_thw: NDArray[np.float16]
    """Rounded as the measured one is."""
    analyse_ms: float
    analyse_cpu_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clip:
    """A window and what the tokenizer said of it."""

    source: str
    span: WindowSpan
    shape: tuple[int, int, int]
    """Frames, rows, columns."""
    codes_thw: NDArray[np.int32]
    information_thw: NDArray[np.float16]
    """Rounded once, here, as the pipeline stores it: routing and selection see no other values."""
    analyse_ms: float
    analyse_cpu_ms: float | None
    prediction: Predicted | None = None

    @property
    def key(self) -> _Key:
        """Source and window index."""
        return self.source, self.span.window_index

    @property
    def cells(self) -> int:
        """Tokens at rate 1."""
        return self.codes_thw.size

    @property
    def information_sum(self) -> int:
        """See `schemas.units.window_sum`."""
        return window_sum(self.information_thw)


def analyse_clips(
    source: ClipSource,
    tokenizer: EvaluatedTokenizer,
    config: EvaluationConfig,
    *,
    clocks: Clocks,
    say: Say,
    predictor: VideoTokenizer | None = None,
) -> tuple[list[Clip], list[LeftOut]]:
    """All clips, or the sample asked for, in order of source and window; and what gave none.

    Args:
        source: Where clips come from.
        tokenizer: What measures their information.
        config: How many, and how many at once.
        clocks: For the cost.
        say: Takes progress.
        predictor: The same network with its latent router; None: nothing is predicted.

    Raises:
        PipelineError: If there is no clip at all, or the tokenizer does not take them.
    """
    analyser = _Analyser(tokenizer, predictor, config.batch_size, clocks)
    sampler = Sampler(source.uris, config.max_windows)
    left_out: dict[str, LeftOut] = {}
    voice = Voice(say, clocks.wall)
    while parts := sampler.next_round():
        for part in parts:
            try:
                count = _add_windows(analyser, source, part, voice)
            except DecodeError as error:
                analyser.forget(part.uri)
                sampler.failed(part.uri)
                failure = error.failure
                left_out[part.uri] = LeftOut(
                    source=part.uri, reason=failure.reason.value, detail=failure.detail
                )
                voice(f"{part.uri} is left out: {failure.reason} ({failure.detail})")
            else:
                sampler.found(part.uri, count)
    clips = analyser.finish()
    if not clips:
        found = f"; of its {len(source.uris)} files none has one" if source.uris else ""
        raise PipelineError(f"{source.url} holds no full window to evaluate{found}")
    return clips, [left_out[uri] for uri in sorted(left_out)]


def _add_windows(analyser: _Analyser, source: ClipSource, part: Part, voice: Voice) -> int:
    """Have a part of a video analysed; returns its number of windows."""

    def told() -> str:
        return f"analysed {analyser.count} windows, the last of {part.uri}"

    count = 0
    for window in source.windows(part.uri, first=part.first, stop=part.stop):
        analyser.add(part.uri, window)
        count += 1
        voice.after_silence(told)
    voice(told())
    return count


class _Analyser:
    """Runs the tokenizer on batches that cross videos."""

    def __init__(
        self,
        tokenizer: EvaluatedTokenizer,
        predictor: VideoTokenizer | None,
        batch_size: int,
        clocks: Clocks,
    ) -> None:
        self._tokenizer = tokenizer
        self._predictor = predictor
        self._batch_size = 1 if tokenizer.device.type == "cpu" else batch_size
        self._clocks = clocks
        self._waiting: list[tuple[str, DecodedWindow]] = []
        self._done: dict[_Key, Clip] = {}

    @property
    def count(self) -> int:
        return len(self._done) + len(self._waiting)

    def add(self, uri: str, window: DecodedWindow) -> None:
        self._waiting.append((uri, window))
        if len(self._waiting) >= self._batch_size:
            self._run()

    def forget(self, uri: str) -> None:
        self._waiting = [item for item in self._waiting if item[0] != uri]
        self._done = {key: clip for key, clip in self._done.items() if key[0] != uri}

    def finish(self) -> list[Clip]:
        self._run()
        return [self._done[key] for key in sorted(self._done)]

    def _run(self) -> None:
        if not self._waiting:
            return
        video_BTHWC = torch.from_numpy(np.stack([w.frames_THWC for _, w in self._waiting]))
        analysis, time = self._analyse(self._tokenizer, video_BTHWC)
        codes = analysis.codes_Bthw.cpu().numpy().astype(np.int32)
        information = self._information(analysis)
        predictions = self._predict(video_BTHWC)
        for row, (uri, window) in enumerate(self._waiting):
            clip = Clip(
                source=uri,
                span=window.span,
                shape=window.frames_THWC.shape[:3],
                codes_thw=codes[row],
                information_thw=information[row],
                analyse_ms=time.wall_ms,
                analyse_cpu_ms=time.cpu_ms,
                prediction=predictions[row],
            )
            self._done[clip.key] = clip
        self._waiting = []

    def _predict(self, video_BTHWC: Tensor) -> Sequence[Predicted | None]:
        if self._predictor is None:
            return [None] * len(video_BTHWC)
        analysis, time = self._analyse(self._predictor, video_BTHWC)
        return [
            Predicted(
                information_thw=information_thw,
                analyse_ms=time.wall_ms,
                analyse_cpu_ms=time.cpu_ms,
            )
            for information_thw in self._information(analysis)
        ]

    def _analyse(self, tokenizer: VideoTokenizer, video_BTHWC: Tensor) -> tuple[Analysis, Timed]:
        """The analysis of a batch, and one window's share of its time."""
        device = tokenizer.device
        try:
            analysis, time = timed(
                lambda: tokenizer.analyse(video_BTHWC.to(device)),
                device=device,
                clocks=self._clocks,
            )
        except ValueError as error:
            raise PipelineError(f"the tokenizer does not take these windows: {error}") from error
        except torch.cuda.OutOfMemoryError as error:
            raise PipelineError(
                f"the GPU cannot hold {len(self._waiting)} windows at once: lower --batch-size"
            ) from error
        return analysis, time.share(len(self._waiting))

    def _information(self, analysis: Analysis) -> NDArray[np.float16]:
        information = analysis.information_Bthw.float().cpu().numpy().astype(np.float16)
        for row, (uri, window) in enumerate(self._waiting):
            if not np.isfinite(information[row]).all():
                where = f"{uri}, window {window.span.window_index}"
                raise PipelineError(f"{where}: the tokenizer's information is not finite")
        return information
