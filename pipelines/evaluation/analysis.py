"""Codes and information of every clip: one encoder and one decoder pass each, and no more.

36 KB per clip of 33 x 256 x 256 are kept; the frames are decoded again when they are compared.

Shapes: B clips, T frames, H rows, W columns, C = 3; lower-case t, h, w the latent grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.decode import DecodedWindow, DecodeError
from pipelines.errors import PipelineError
from pipelines.evaluation.clips import ClipSource, Sampler
from pipelines.evaluation.settings import Clocks, EvaluatedTokenizer, EvaluationConfig, Say, timed
from schemas.evaluation import LeftOut
from schemas.units import window_sum
from schemas.windows import WindowSpan

__all__ = ["Clip", "analyse_clips"]

_Key = tuple[str, int]


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
) -> tuple[list[Clip], list[LeftOut]]:
    """All clips, or the sample asked for, in order of source and window; and what gave none.

    Raises:
        PipelineError: If there is no clip at all, or the tokenizer does not take them.
    """
    analyser = _Analyser(tokenizer, config.batch_size, clocks)
    sampler = Sampler(source.uris, config.max_windows)
    left_out: dict[str, LeftOut] = {}
    while parts := sampler.next_round():
        for part in parts:
            count = 0
            try:
                for window in source.windows(part.uri, first=part.first, stop=part.stop):
                    analyser.add(part.uri, window)
                    count += 1
            except DecodeError as error:
                analyser.forget(part.uri)
                sampler.failed(part.uri)
                failure = error.failure
                left_out[part.uri] = LeftOut(
                    source=part.uri, reason=failure.reason.value, detail=failure.detail
                )
                say(f"{part.uri} is left out: {failure.reason} ({failure.detail})")
            else:
                sampler.found(part.uri, count)
                say(f"analysed {analyser.count} windows, the last of {part.uri}")
    clips = analyser.finish()
    if not clips:
        raise PipelineError(f"{source.root} holds no full window to evaluate")
    return clips, [left_out[uri] for uri in sorted(left_out)]


class _Analyser:
    """Runs the tokenizer on batches that cross videos."""

    def __init__(self, tokenizer: EvaluatedTokenizer, batch_size: int, clocks: Clocks) -> None:
        self._tokenizer = tokenizer
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
        device = self._tokenizer.device
        try:
            analysis, time = timed(
                lambda: self._tokenizer.analyse(video_BTHWC.to(device)),
                device=device,
                clocks=self._clocks,
            )
        except ValueError as error:
            raise PipelineError(f"the tokenizer does not take these windows: {error}") from error
        except torch.cuda.OutOfMemoryError as error:
            raise PipelineError(
                f"the GPU cannot hold {len(self._waiting)} windows at once: lower --batch-size"
            ) from error
        codes = analysis.codes_Bthw.cpu().numpy().astype(np.int32)
        information = analysis.information_Bthw.float().cpu().numpy()
        share = time.share(len(self._waiting))
        for row, (uri, window) in enumerate(self._waiting):
            if not np.isfinite(information[row].astype(np.float16)).all():
                where = f"{uri}, window {window.span.window_index}"
                raise PipelineError(f"{where}: the tokenizer's information is not finite")
            clip = Clip(
                source=uri,
                span=window.span,
                shape=window.frames_THWC.shape[:3],
                codes_thw=codes[row],
                information_thw=information[row].astype(np.float16),
                analyse_ms=share.wall_ms,
                analyse_cpu_ms=share.cpu_ms,
            )
            self._done[clip.key] = clip
        self._waiting = []
