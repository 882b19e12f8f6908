"""The files a person looks at, written as the windows of a video come in.

Shapes: T frames, P panels, H rows, W columns, C = 3 colours.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from infotok_core.windows import blend
from pipelines.corpus_reader import StoredVideo
from pipelines.file_writes import writing
from pipelines.pictures import contact_sheet, side_by_side
from pipelines.video_writer import VideoWriter, png_bytes

__all__ = ["PictureFiles", "PictureFolder", "SeamJoiner", "file_stem"]

_SHEET_FRAMES = 6
_STEM_BYTES = 120
"""Names may have 255 bytes; suffixes and the temporary name need some of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFolder:
    """Where pictures go.

    Attributes:
        path: A local folder; made if need be.
        side_by_side: Also write original | reconstruction | kept tokens.
        crf: Quality of the videos: what is seen at the default is the tokenizer's loss alone.
    """

    path: Path
    side_by_side: bool = False
    crf: int = 16


def file_stem(video: StoredVideo) -> str:
    """A file name that is safe everywhere, tells people which video it is, and is unique.

    The URI without its suffix, the first digits of the video id and, if it is not the whole video,
    the number of the window.
    """
    name, _, suffix = video.source.rpartition(".")
    readable = name if name and "/" not in suffix else video.source
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in readable).strip("._-")
    short = safe.encode("utf-8")[-_STEM_BYTES:].decode("utf-8", "ignore")
    window = "" if video.whole else f"-{video.keys[0].window_index:06d}"
    return f"{short or 'video'}-{video.video_id[:8]}{window}"


class SeamJoiner:
    """Windows to one sequence of frames: those that two windows share are cross-faded.

    Holds the frames of one window at a time.
    """

    def __init__(self) -> None:
        self._start = 0
        self._pending: npt.NDArray[np.uint8] | None = None

    def push(self, start_frame: int, frames_THWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Add the next window; returns the frames before it that are final, maybe none.

        Args:
            start_frame: Of its first frame, counted like that of the windows before.
            frames_THWC: uint8; reaches further than the window before.
        """
        if self._pending is None:
            self._start, self._pending = start_frame, frames_THWC
            return frames_THWC[:0]
        # A gap (windows left out) is a plain cut.
        shared = max(self._start + len(self._pending) - start_frame, 0)
        split = len(self._pending) - shared
        final, tail = self._pending[:split], self._pending[split:]
        if shared:
            seam = blend(tail, frames_THWC[:shared])
            frames_THWC = np.concatenate([seam, frames_THWC[shared:]])
        self._start, self._pending = start_frame, frames_THWC
        return final

    def flush(self) -> npt.NDArray[np.uint8]:
        """The frames held back; nothing comes behind them.

        Raises:
            ValueError: If no window was pushed.
        """
        if self._pending is None:
            raise ValueError("no window was pushed")
        frames_THWC, self._pending = self._pending, None
        return frames_THWC


class PictureFiles:
    """``STEM.mp4``, ``STEM.side-by-side.mp4`` and ``STEM.png`` of one video. A context manager.

    After an error no file of the video is left behind.

    Args:
        folder: Where, and what.
        stem: Name without suffix, see `file_stem`.
        num_frames: Of the whole sequence, overlap counted once: spreads the contact sheet.
    """

    def __init__(self, folder: PictureFolder, stem: str, *, num_frames: int) -> None:
        self._folder = folder
        self._stem = stem
        count = min(_SHEET_FRAMES, num_frames)
        self._sheet_frames = {int((k + 0.5) * num_frames / count) for k in range(count)}
        self._sheet: list[npt.NDArray[np.uint8]] = []
        self._joiner = SeamJoiner()
        self._files = ExitStack()
        self._video: VideoWriter | None = None
        self._comparison: VideoWriter | None = None
        self._panels = 0

    def add(self, start_frame: int, panels_TPHWC: npt.NDArray[np.uint8], *, fps: float) -> None:
        """Take the next window.

        Args:
            start_frame: Of its first frame.
            fps: Frames per second; one rate per video.
            panels_TPHWC: Last but one the reconstruction, last the kept tokens; the original, if
                there is one, first.

        Raises:
            StorageError: If it cannot be written.
        """
        # While a corpus is read an error is else taken for one of the corpus.
        with writing(self._folder.path):
            self._add(start_frame, panels_TPHWC, fps)

    def _add(self, start_frame: int, panels_TPHWC: npt.NDArray[np.uint8], fps: float) -> None:
        num_frames, panels, height, width, colours = panels_TPHWC.shape
        if self._video is None:
            self._folder.path.mkdir(parents=True, exist_ok=True)
            self._video = self._writer("mp4", width, height, fps)
            if self._folder.side_by_side:
                shape = side_by_side(panels_TPHWC[:1]).shape
                self._comparison = self._writer("side-by-side.mp4", shape[2], shape[1], fps)
        # Panels on top of each other are one tall frame: all of them get the same seams.
        tall_THWC = panels_TPHWC.reshape(num_frames, panels * height, width, colours)
        self._write(self._joiner.push(start_frame, tall_THWC), panels)
        self._panels = panels

    def finish(self) -> None:
        """Write what is held back, and the contact sheet; all files are complete then.

        Raises:
            StorageError: If they cannot be written.
        """
        with writing(self._folder.path):
            self._write(self._joiner.flush(), self._panels)
            self._files.close()
            sheet = contact_sheet(np.stack(self._sheet))
            (self._folder.path / f"{self._stem}.png").write_bytes(png_bytes(sheet))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._files.__exit__(kind, error, trace)

    def _writer(self, suffix: str, width: int, height: int, fps: float) -> VideoWriter:
        path = self._folder.path / f"{self._stem}.{suffix}"
        writer = VideoWriter(path, width=width, height=height, fps=fps, crf=self._folder.crf)
        return self._files.enter_context(writer)

    def _write(self, tall_THWC: npt.NDArray[np.uint8], panels: int) -> None:
        num_frames, tall, width, colours = tall_THWC.shape
        panels_TPHWC = tall_THWC.reshape(num_frames, panels, tall // panels, width, colours)
        assert self._video is not None, "frames come after the first window"
        first = self._video.num_frames
        self._sheet += [
            panels_TPHWC[i].copy() for i in range(num_frames) if first + i in self._sheet_frames
        ]
        self._video.write(panels_TPHWC[:, -2])
        if self._comparison is not None:
            self._comparison.write(side_by_side(panels_TPHWC))
