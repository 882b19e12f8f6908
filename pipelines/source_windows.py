"""The source frames of a corpus' windows once more, exactly as pass one saw them."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from pipelines.config import DecodeLimits, SpaceConfig, StorageConfig, WindowConfig
from pipelines.corpus_reader import StoredVideo
from pipelines.decode import DecodedWindow, DecodeError, DecodeRequest, DecoderProcess
from pipelines.errors import PlanMismatchError, StorageError
from pipelines.row_files import RowKey
from pipelines.sources import source_url
from pipelines.storage import storage_options
from schemas.ids import WINDOWS_PER_UNIT
from schemas.info import CorpusInfo
from schemas.versions import FormatError

__all__ = ["SourceWindows"]


class SourceWindows:
    """Decodes videos of the source again. A context manager: owns the decoding process.

    Args:
        info: Of the corpus; its policies cut the frames.
        root: Folder or URL that the URIs are relative to.
        storage: How to reach it.

    Raises:
        FormatError: If the policies are not those of this release.
    """

    def __init__(self, info: CorpusInfo, *, root: str, storage: StorageConfig) -> None:
        self._root = root
        self._storage = storage
        self._decoder = DecoderProcess()
        try:
            self._window = WindowConfig.model_validate(info.window)
            self._space = SpaceConfig.model_validate(info.space)
        except ValidationError as error:
            raise FormatError(f"the policies of the corpus are not understood: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._decoder.kill()

    def frames(self, video: StoredVideo) -> Iterator[npt.NDArray[np.uint8]]:
        """Source frames of each key of ``video``, uint8 [num_frames, height, width, 3].

        Raises:
            StorageError: If the video is gone or does not decode any more.
            PlanMismatchError: If its windows are others than when the corpus was made.
        """
        url = source_url(self._root, video.source)
        units = {key.window_index // WINDOWS_PER_UNIT for key in video.keys}
        request = DecodeRequest(
            url=url,
            storage_options=storage_options(url, self._storage),
            size=None,
            window=self._window,
            space=self._space,
            limits=DecodeLimits(),
            skip_units=frozenset(range(max(units))) - units,
        )
        expected = list(reversed(video.keys))
        try:
            for window in self._decoder.windows(request):
                if expected and window.span.window_index == expected[-1].window_index:
                    yield _checked(window, expected.pop(), url)
                elif video.whole:
                    raise PlanMismatchError(_changed(url, f"window {window.span.window_index}"))
                if not expected and not video.whole:
                    return
        except DecodeError as error:
            raise StorageError(f"{url} cannot be compared with: {error}") from error
        if expected:
            number = expected[-1].window_index
            raise PlanMismatchError(_changed(url, f"{number} windows where the corpus has more"))


def _checked(window: DecodedWindow, key: RowKey, url: str) -> npt.NDArray[np.uint8]:
    span = window.span
    if (span.start_frame, span.num_frames) != (key.start_frame, key.num_frames):
        what = f"frames {span.start_frame}+{span.num_frames} in window {key.window_index}"
        raise PlanMismatchError(_changed(url, what))
    return window.frames_THWC[: span.num_frames]


def _changed(url: str, what: str) -> str:
    return f"{url} is not what the corpus was made from, or was changed since: it has {what}"
