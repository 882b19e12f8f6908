"""Is every clip there, once? Answered for any number of clips in bounded memory, on scratch disk.

Keys (16 bytes of video id, 4 bytes of window index) are spilled to 256 scratch files by their first
byte; each is then sorted on its own. A video id is a hash, so the files are about equally long.
"""

from __future__ import annotations

import tempfile
from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from schemas.ids import clip_id

__all__ = ["ClipKeys", "KeyReport"]

_KEY = np.dtype("S20")
_BUFFERED_KEYS = 1 << 18
_EXAMPLES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyReport:
    """What all keys together say.

    Attributes:
        num_videos: Distinct videos.
        num_repeated: Keys that were there before.
        repeated: The first few clip ids of these.
        num_missing: Windows without a row, before the last one of their video.
        missing: The first few clip ids that come after such a hole.
        num_quarantined: Videos with rows although they are quarantined.
    """

    num_videos: int
    num_repeated: int
    repeated: tuple[str, ...]
    num_missing: int
    missing: tuple[str, ...]
    num_quarantined: int


class ClipKeys:
    """Collects keys; a context manager, which removes its scratch files."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="clip-keys-")
        self._buffer: list[bytes] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._folder.cleanup()

    def add(self, keys: Iterable[tuple[str, int]]) -> None:
        """Collect (video id, window index) pairs.

        Raises:
            ValueError: If a video id is not 32 hex digits, or an index no unsigned 32-bit number.
        """
        for video, index in keys:
            raw = bytes.fromhex(video)
            if len(raw) != 16 or not 0 <= index < 1 << 32:
                raise ValueError(f"not a clip: video {video!r}, window {index}")
            self._buffer.append(raw + index.to_bytes(4, "big"))
        if len(self._buffer) >= _BUFFERED_KEYS:
            self._spill()

    def report(self, *, quarantined: Container[str] = ()) -> KeyReport:
        """Look at all keys.

        Args:
            quarantined: Ids of videos that must have no rows.
        """
        self._spill()
        num_videos = num_repeated = num_missing = num_quarantined = 0
        examples: list[str] = []
        after_holes: list[str] = []
        for path in sorted(Path(self._folder.name).iterdir()):
            keys = np.sort(np.fromfile(path, _KEY))
            again = keys[1:][keys[1:] == keys[:-1]]
            num_repeated += again.size
            examples += [_clip(_raw(key)) for key in again[: _EXAMPLES - len(examples)]]
            holes = _holes(keys)
            num_missing += int(holes.sum())
            chosen = keys[holes > 0][: _EXAMPLES - len(after_holes)]
            after_holes += [_clip(_raw(key)) for key in chosen]
            videos = {_raw(key)[:16].hex() for key in keys}
            num_videos += len(videos)
            num_quarantined += sum(video in quarantined for video in videos)
        return KeyReport(
            num_videos=num_videos,
            num_repeated=num_repeated,
            repeated=tuple(examples),
            num_missing=num_missing,
            missing=tuple(after_holes),
            num_quarantined=num_quarantined,
        )

    def _spill(self) -> None:
        keys: npt.NDArray[np.bytes_] = np.sort(np.array(self._buffer, _KEY))
        first = keys.view(np.uint8)[:: _KEY.itemsize]
        for byte in np.unique(first):
            with Path(self._folder.name, f"{byte:02x}").open("ab") as file:
                file.write(keys[first == byte].tobytes())
        self._buffer.clear()


def _holes(keys: npt.NDArray[np.bytes_]) -> npt.NDArray[np.int64]:
    """How many windows are missing between each of some sorted keys and the one before it."""
    raw = keys.view(np.uint8).reshape(-1, _KEY.itemsize)
    index = np.ascontiguousarray(raw[:, 16:]).view(">u4").reshape(-1).astype(np.int64)
    same_video = (raw[1:, :16] == raw[:-1, :16]).all(axis=1)
    previous = np.concatenate([[-1], np.where(same_video, index[:-1], -1)])
    return np.maximum(index - previous - 1, 0)


def _raw(key: bytes) -> bytes:
    # numpy hands bytes out without their trailing zeros.
    return bytes(key).ljust(_KEY.itemsize, b"\0")


def _clip(raw: bytes) -> str:
    return clip_id(raw[:16].hex(), int.from_bytes(raw[16:], "big"))
