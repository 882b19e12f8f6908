"""A finished corpus, video by video: a shard is searched by its keys, rows are read when needed.

In memory: the keys of one shard, the bytes of one data file, one row group of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Self

from pipelines.errors import IncompleteError, StorageError
from pipelines.row_files import RowFile, RowKey, open_row_file
from pipelines.storage import Store
from schemas.info import CorpusInfo
from schemas.layout import INFO_PATH, MANIFEST_PATH
from schemas.manifest import DataFile, decode_manifest
from schemas.versions import FormatError

__all__ = ["CorpusReader", "StoredVideo", "read_manifest"]


def read_manifest(store: Store) -> list[DataFile]:
    """What a corpus is made of.

    Raises:
        IncompleteError: If there is no manifest.
        FormatError: If it is damaged or of another version.
    """
    try:
        return decode_manifest(store.read(MANIFEST_PATH))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise IncompleteError(
            f"{store.url} holds no corpus: there is no {MANIFEST_PATH}, which a run writes last"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVideo:
    """A video of the corpus: where its rows are.

    Attributes:
        video_id: Its id.
        source: Its URI relative to the source root.
        keys: One per window, in order of ``window_index``.
        files: The file of each key.
        whole: Whether these are all its windows.
    """

    video_id: str
    source: str
    keys: tuple[RowKey, ...]
    files: tuple[DataFile, ...]
    whole: bool = True

    @property
    def num_frames(self) -> int:
        """Frames from the first window's first to the last window's last; overlap counts once."""
        return self.keys[-1].start_frame + self.keys[-1].num_frames - self.keys[0].start_frame

    def only(self, window_index: int) -> StoredVideo:
        """The same video, but one window of it.

        Raises:
            KeyError: If it has no such window.
        """
        for key, file in zip(self.keys, self.files, strict=True):
            if key.window_index == window_index:
                return replace(self, keys=(key,), files=(file,), whole=False)
        raise KeyError(window_index)


class CorpusReader:
    """Reads what the manifest lists, and nothing else.

    Rows come from the Parquet files, or from the tars where there are no Parquet files: each
    format holds all rows.
    """

    def __init__(self, store: Store, info: CorpusInfo, files: Collection[DataFile]) -> None:
        self.store = store
        self.info = info
        formats = {file.format for file in files}
        wanted = "parquet" if "parquet" in formats else "webdataset"
        self._files = sorted(
            (file for file in files if file.format == wanted),
            key=lambda file: (file.shard, file.path),
        )
        self._open: tuple[str, RowFile] | None = None

    @classmethod
    def open(cls, store: Store) -> Self:
        """Read the heads of a corpus.

        Raises:
            IncompleteError: If there is no manifest.
            FormatError: If a head is damaged or of another version.
        """
        files = read_manifest(store)
        return cls(store, CorpusInfo.from_bytes(store.read(INFO_PATH)), files)

    def videos(self, wanted: Collection[str] | None = None) -> Iterator[StoredVideo]:
        """The videos, shard by shard.

        Args:
            wanted: Ids of the only ones to give; None for all.

        Raises:
            FormatError: If a file on the way is damaged.
            StorageError: If a listed file is gone or not the one that was listed.
        """
        for _, files in groupby(self._files, key=lambda file: file.shard):
            candidates = [file for file in files if _may_hold(file, wanted)]
            yield from self._shard(candidates, wanted)

    def rows(self, video: StoredVideo) -> Iterator[dict[str, Any]]:
        """The rows of a video, in order of its windows; see `videos` for what is raised."""
        for key, file in zip(video.keys, video.files, strict=True):
            yield self._row_file(file).row(key)

    def sample(self, names: Sequence[str], *, limit: int) -> Iterator[tuple[Any, ...]]:
        """These columns of the rows of some data files; see `videos` for what is raised.

        Args:
            names: Of columns.
            limit: No further file is read after so many rows.
        """
        count = 0
        # By digest: a random choice that is the same each time.
        for file in sorted(self._files, key=lambda file: file.sha256):
            if count >= limit:
                return
            yield from self._row_file(file).values(names)
            count += file.clips

    def _shard(
        self, files: list[DataFile], wanted: Collection[str] | None
    ) -> Iterator[StoredVideo]:
        found: dict[str, list[tuple[RowKey, int]]] = {}
        for index, file in enumerate(files):
            for key in self._row_file(file).scan():
                if wanted is None or key.video_id in wanted:
                    found.setdefault(key.video_id, []).append((key, index))
        # By last file: a video that two files share then comes between their other videos, and
        # each file is opened once more only.
        for places in sorted(found.values(), key=lambda places: (places[-1][1], places[0][1])):
            places.sort(key=lambda place: place[0].window_index)
            yield StoredVideo(
                video_id=places[0][0].video_id,
                source=places[0][0].source,
                keys=tuple(key for key, _ in places),
                files=tuple(files[index] for _, index in places),
            )

    def _row_file(self, file: DataFile) -> RowFile:
        if self._open is None or self._open[0] != file.path:
            # Let go of the one before first: only one is in memory.
            self._open = None
            self._open = (file.path, self._read(file))
        return self._open[1]

    def _read(self, file: DataFile) -> RowFile:
        try:
            data = self.store.read(file.path)
        except FileNotFoundError as error:
            raise StorageError(f"{self.store.full(file.path)} is in the manifest, but gone") from (
                error
            )
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise FormatError(
                f"{file.path} is not the file that {MANIFEST_PATH} lists: its SHA-256 differs"
            )
        return open_row_file(file, data)


def _may_hold(file: DataFile, wanted: Collection[str] | None) -> bool:
    if wanted is None:
        return True
    # Clip ids are a video id, a dash and the window: compared by their video part.
    first, last = (clip.rpartition("-")[0] for clip in (file.min_clip_id, file.max_clip_id))
    return any(first <= video <= last for video in wanted)
