"""The videos of a corpus as training decodes them: one broken video costs one video.

What is wrong with the *store* ends the run: left out, it would be a video that the resumed run sees
and this one does not.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pipelines.config import RunConfig, SpaceConfig, WindowConfig
from pipelines.decode import DecodeError, DecodeRequest, DecoderProcess, Patch, Segment
from pipelines.errors import PipelineError
from pipelines.sources import Source, source_url
from pipelines.storage import storage_options
from schemas.failures import Failure, FailureReason, FailureStage
from schemas.ids import digest
from schemas.windows import StreamFacts

__all__ = ["TrainingVideos"]

log = logging.getLogger(__name__)

_OF_THE_STORE = frozenset(
    (FailureReason.ACCESS_DENIED, FailureReason.SOURCE_CHANGED, FailureReason.INTERNAL)
)


class TrainingVideos:
    """A listed corpus. `frames` may be called from many threads; each has a decoding process.

    Args:
        source: Is listed here, to its end.
        config: Its limits, storage and ``window.fps`` apply.

    Raises:
        PipelineError: If there is no object.
    """

    def __init__(self, source: Source, config: RunConfig) -> None:
        self.url, self.root = source.url or source.root, source.root
        self.objects = sorted(source.objects, key=lambda item: item.uri)
        if not self.objects:
            raise PipelineError(f"{self.url} holds no videos to train on")
        self._config = config
        self._local = threading.local()
        self._decoders: list[DecoderProcess] = []
        self._lock = threading.Lock()
        self._left_out: set[int] = set()

    def __len__(self) -> int:
        return len(self.objects)

    @property
    def digest(self) -> str:
        """Digest of the listing: two corpora with the same one give the same clips."""
        return digest([[item.uri, item.size] for item in self.objects])

    def frames(
        self,
        index: int,
        *,
        num_frames: int,
        space: SpaceConfig,
        segment: Segment | None = None,
        patch: Patch | None = None,
    ) -> Iterator[npt.NDArray[np.uint8]]:
        """Frames that follow each other, in pieces.

        Args:
            index: Position in `objects`.
            num_frames: Least length of a piece, but for the last one.
            space: How they are scaled; always ``keep``.
            segment: Of pieces, see `Segment`.
            patch: See `Patch`.

        Yields:
            uint8 ``[T, H, W, 3]``, owned by the caller.

        Raises:
            DecodeError: The video is broken; what came before must be thrown away.
            PipelineError: The store or the decoding process fails, and not the video.
        """
        request = self._request(
            index, num_frames=num_frames, space=space, segment=segment, patch=patch
        )
        try:
            for window in self._decoder().windows(request):
                yield window.frames_THWC[: window.span.num_frames]
        except DecodeError as error:
            reason = error.failure.reason
            vanished = reason == FailureReason.NOT_FOUND and self.objects[index].size > 0
            if vanished or reason in _OF_THE_STORE:
                raise PipelineError(f"{request.url} cannot be read: {error}") from error
            raise
        except RuntimeError as error:
            raise PipelineError(f"{request.url} cannot be decoded: {error}") from error

    @property
    def facts(self) -> StreamFacts | None:
        """The stream of the video that this thread decoded last."""
        return self._decoder().facts

    def leave_out(self, index: int, failure: Failure) -> None:
        """Name a video that gives no clip in a warning, unless that was done already."""
        with self._lock:
            known = index in self._left_out
            self._left_out.add(index)
        if not known:
            uri = self.objects[index].uri
            log.warning("%s is left out: %s (%s)", uri, failure.reason, failure.detail)

    def leave_out_short(self, index: int, num_frames: int, wanted: int) -> None:
        """The same for one that is sound, but shorter than a clip."""
        detail = f"{num_frames} frames, a clip has {wanted}"
        failure = Failure(reason=FailureReason.TOO_SHORT, stage=FailureStage.DECODE, detail=detail)
        self.leave_out(index, failure)

    def close(self) -> None:
        """End the decoding processes. No thread may be decoding any more."""
        for decoder in self._decoders:
            decoder.kill()

    def _request(
        self,
        index: int,
        *,
        num_frames: int,
        space: SpaceConfig,
        segment: Segment | None,
        patch: Patch | None,
    ) -> DecodeRequest:
        item = self.objects[index]
        url = source_url(self.root, item.uri)
        # Windows have 1 + 4k frames.
        window = WindowConfig(
            frames=num_frames + -(num_frames - 1) % 4, fps=self._config.window.fps
        )
        return DecodeRequest(
            url=url,
            storage_options=storage_options(url, self._config.source_storage),
            size=item.size or None,
            window=window,
            space=space,
            limits=self._config.limits,
            segment=segment,
            patch=patch,
        )

    def _decoder(self) -> DecoderProcess:
        decoder: DecoderProcess | None = getattr(self._local, "decoder", None)
        if decoder is None:
            decoder = self._local.decoder = DecoderProcess()
            with self._lock:
                self._decoders.append(decoder)
        return decoder
