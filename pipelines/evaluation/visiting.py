"""The frames of clips, decoded once more: keeping those of a corpus would take its size in memory.

Shapes: T frames, H rows, W columns, C = 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from pipelines.decode import DecodeError
from pipelines.errors import PipelineError
from pipelines.evaluation.analysis import Clip
from pipelines.evaluation.clips import ClipSource
from pipelines.evaluation.settings import Say
from pipelines.voice import Voice

__all__ = ["visit_clips"]


def visit_clips(
    source: ClipSource,
    clips: Iterable[Clip],
    visit: Callable[[Clip, NDArray[np.uint8]], None],
    *,
    clock: Callable[[], float],
    say: Say,
) -> None:
    """Decode the frames of clips again and hand each to ``visit``, in order.

    Args:
        source: Where they came from.
        clips: Any of them.
        visit: Takes a clip and its frames.
        clock: Seconds, for the time left.
        say: Takes progress.

    Raises:
        PipelineError: If a video changed since it was analysed.
    """
    wanted: dict[str, dict[int, Clip]] = {}
    for clip in clips:
        wanted.setdefault(clip.source, {})[clip.span.window_index] = clip
    total, done, start = sum(map(len, wanted.values())), 0, clock()
    voice = Voice(say, clock)

    def told() -> str:
        left_s = (clock() - start) * (total - done) / done
        return f"measured {done} of {total} windows, about {left_s:.0f} s to go"

    def counted(clip: Clip, frames_THWC: NDArray[np.uint8]) -> None:
        nonlocal done
        visit(clip, frames_THWC)
        done += 1
        voice.after_silence(told)

    for uri, windows in sorted(wanted.items()):
        _visit_video(source, uri, windows, counted)
        voice(told())


def _visit_video(
    source: ClipSource,
    uri: str,
    windows: Mapping[int, Clip],
    visit: Callable[[Clip, NDArray[np.uint8]], None],
) -> None:
    left = set(windows)
    try:
        for window in source.windows(uri, first=min(left), stop=max(left) + 1):
            index = window.span.window_index
            if index in left:
                visit(windows[index], window.frames_THWC)
                left.discard(index)
    except DecodeError as error:
        raise PipelineError(f"{uri} cannot be decoded any more: {error}") from error
    if left:
        raise PipelineError(f"{uri} has fewer windows than when it was analysed")
