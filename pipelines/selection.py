"""Which videos and windows of a corpus a person asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Self

from pipelines.corpus_reader import CorpusReader, StoredVideo
from pipelines.errors import PipelineError
from schemas.ids import quote_path, video_id
from schemas.layout import QUARANTINE_PATH
from schemas.quarantine import decode_quarantine

__all__ = ["Selection"]

_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """All videos, or some videos and single windows.

    Attributes:
        videos: Video id to what the person wrote, which may be spelled in two ways.
        clips: Video id to its wanted windows, each with what the person wrote.
        limit: Videos to give at most.
    """

    videos: Mapping[str, str]
    clips: Mapping[str, Mapping[int, str]]
    limit: int | None = None

    @classmethod
    def parse(
        cls, *, videos: Iterable[str] = (), clips: Iterable[str] = (), limit: int | None = None
    ) -> Self:
        """From what a person writes.

        Args:
            videos: URIs as in the ``source`` column, or plain paths relative to the source root.
            clips: Clip ids.
            limit: Videos to give at most.

        Raises:
            ValueError: If a clip id is none.
        """
        windows: dict[str, dict[int, str]] = {}
        for clip in clips:
            video, _, index = clip.rpartition("-")
            if not video or not index.isdecimal():
                raise ValueError(f"{clip!r} is not a clip id: VIDEO_ID-WINDOW")
            windows.setdefault(video, {})[int(index)] = clip
        named = {video: uri for uri in videos for video in _spelled(uri)}
        return cls(videos=named, clips=windows, limit=limit)

    def of(self, reader: CorpusReader) -> Iterator[StoredVideo]:
        """The wanted videos of a corpus in its order; single windows one by one.

        Raises:
            PipelineError: After the last one, if the corpus lacks some of what was asked for.
        """
        missing = {
            *self.videos.values(),
            *(c for video in self.clips.values() for c in video.values()),
        }
        wanted = {*self.videos, *self.clips} or None
        given = 0
        for video in islice(reader.videos(wanted), self.limit):
            given += 1
            name = video.video_id
            if wanted is None or name in self.videos:
                missing.discard(self.videos.get(name, ""))
                yield video
            present = {key.window_index for key in video.keys}
            for index, clip in sorted(self.clips.get(name, {}).items()):
                if index in present:
                    missing.discard(clip)
                    yield video.only(index)
        # Where the limit was reached, nobody looked whether the rest is there.
        if missing and given != self.limit:
            why = self._set_aside(reader)
            named = ", ".join(what + why.get(what, "") for what in sorted(missing)[:_NAMED])
            raise PipelineError(f"{reader.store.url} has no {named}")

    def _set_aside(self, reader: CorpusReader) -> dict[str, str]:
        """Of what the person wrote and the corpus has set aside: that it did, and why."""
        try:
            rows = decode_quarantine(reader.store.read(QUARANTINE_PATH))
        except FileNotFoundError:
            return {}
        written: dict[str, str] = {}
        for row in rows:
            video = row["video_id"]
            for what in (self.videos.get(video), *self.clips.get(video, {}).values()):
                if what is not None:
                    written[what] = f" (set aside: {row['reason']})"
        return written


def _spelled(uri: str) -> Iterator[str]:
    """Ids that may be meant: of a URI as in the rows, and of a plain path, maybe with a percent."""
    yield video_id(uri)
    yield video_id(quote_path(uri))
