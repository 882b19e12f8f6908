"""The work folder: what a run leaves behind as it goes, and what a resume finds.

```
plan.json plan.parquet        the listing, fixed
analysis.json                 on what kind of device, in what precision pass one computes
units/{unit_id}-{key}.parquet analysis of 16 windows: codes and information
videos/{video_id}.json        receipt: the video is finished, one way or the other
timings/{run}-{stage}.json    how long it took; nothing depends on it
attempts/{id}/{run}-{n}       a start, noted before it happens: survives the death of its worker
statistics.json               the frozen statistics of pass one
commits/{tokens_key}/{shard}.json
```

"Done" is always an object one can list. The key in a unit's name is a digest of everything its
content depends on, the version of the source object included, so that an object of an older
source, tokenizer or policy is never taken for a current one.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.errors import PipelineError, PlanMismatchError
from pipelines.storage import Store
from schemas.ids import digest, unit_id
from schemas.receipts import UnitEntry, VideoReceipt
from schemas.versions import FormatError

__all__ = ["IdSet", "LeftoverUnits", "WorkFolder"]

_READERS = 16

LeftoverUnits = dict[str, list[tuple[int, str]]]
"""Video id to (unit index, key) of stored units."""


class IdSet:
    """Video ids at 16 bytes each: ten million of them are 160 MB, as strings they would be 1 GB."""

    def __init__(self, ids: Iterator[str]) -> None:
        packed = b"".join(bytes.fromhex(item) for item in ids)
        halves = np.frombuffer(packed, dtype=">u8").reshape(-1, 2).astype(np.uint64)
        order = np.lexsort((halves[:, 1], halves[:, 0]))
        # Sorted. Arrays of the standard library: `bisect` asks them ten times faster than NumPy's.
        self._high = array("Q", halves[order, 0].tobytes())
        self._low = array("Q", halves[order, 1].tobytes())

    def __len__(self) -> int:
        return len(self._high)

    def lowest(self, count: int) -> IdSet:
        """The first ``count`` ids in their order.

        Ids are hashes, so this is a random sample; it depends on the set alone, and a larger one
        holds every smaller one.
        """
        part = IdSet(iter(()))
        part._high, part._low = self._high[:count], self._low[:count]
        return part

    def __contains__(self, video: str) -> bool:
        high, low = int(video[:16], 16), int(video[16:], 16)
        index = bisect_left(self._high, high)
        while index < len(self._high) and self._high[index] == high:
            if self._low[index] == low:
                return True
            index += 1
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkFolder:
    """The store of a run and the digest of what pass one's objects depend on.

    Attributes:
        store: Root of the work folder.
        analysis_key: Digest over policy, tokenizer, device kind and precision.
    """

    store: Store
    analysis_key: str

    def unit_path(self, video: str, version: str, unit_index: int) -> str:
        """Name of a unit object."""
        return f"units/{unit_id(video, unit_index)}-{self._unit_key(version)}.parquet"

    def _unit_key(self, version: str) -> str:
        return digest([self.analysis_key, version])[:12]

    def leftover_units(self, finished: Container[str] = ()) -> LeftoverUnits:
        """Units of videos that are not finished, in one listing: what killed runs left behind."""
        found: LeftoverUnits = defaultdict(list)
        for path, _ in self.store.list("units"):
            video, unit, key = path.removeprefix("units/").removesuffix(".parquet").split("-")
            if video not in finished:
                found[video].append((int(unit[1:]), key))
        return dict(found)

    def stored_units(self, leftovers: LeftoverUnits, video: str, version: str) -> list[int]:
        """Indices of the units of a video that need not be encoded again, in order."""
        key = self._unit_key(version)
        return sorted(index for index, found in leftovers.get(video, ()) if found == key)

    def finished_videos(self) -> IdSet:
        """Ids of all videos that have a receipt: one listing, no reads."""
        return IdSet(
            path.removeprefix("videos/").removesuffix(".json")
            for path, _ in self.store.list("videos")
        )

    def put_receipt(self, receipt: VideoReceipt) -> None:
        """Publish the receipt of a finished video."""
        path = f"videos/{receipt.video_id}.json"
        self.store.publish(path, receipt.model_dump_json().encode())

    def receipt(self, video: str) -> VideoReceipt:
        """The receipt of a video.

        Raises:
            FileNotFoundError: If it is not finished.
            PipelineError: If the receipt is damaged.
        """
        path = f"videos/{video}.json"
        try:
            return VideoReceipt.from_bytes(self.store.read(path))
        except FormatError as error:
            raise PipelineError(f"{self.store.full(path)} is damaged: {error}") from error

    def receipts(self, videos: Iterator[str]) -> Iterator[VideoReceipt]:
        """Receipts in the order asked for, read ahead by a few threads."""
        with ThreadPoolExecutor(_READERS) as pool:
            pending: list[Any] = []
            for video in videos:
                pending.append(pool.submit(self.receipt, video))
                if len(pending) > 4 * _READERS:
                    yield pending.pop(0).result()
            for future in pending:
                yield future.result()

    def read_unit(self, entry: UnitEntry) -> bytes:
        """A unit object, proved to be the one the receipt speaks of.

        Raises:
            PipelineError: If it is gone or its bytes are not those that were stored.
        """
        try:
            data = self.store.read(entry.path)
        except FileNotFoundError as error:
            raise PipelineError(
                f"{self.store.full(entry.path)} is gone (second_pass = recompute keeps "
                "none); go on with --set runtime.second_pass=recompute"
            ) from error
        found = hashlib.sha256(data).hexdigest()
        if found != entry.sha256:
            raise PipelineError(
                f"{self.store.full(entry.path)} is damaged: sha256 {found}, stored {entry.sha256}"
            )
        return data

    def claim(self, name: str, *, run_id: str, limit: int) -> int:
        """Note a start before it happens.

        Starts are counted per run: a driver that is killed and started again says nothing about
        the video it was busy with, a worker that dies under a living driver does.

        Returns:
            The number of this start, from 1; ``limit + 1`` if it must not happen any more.
        """
        for number in range(1, limit + 1):
            if self.store.create(f"attempts/{name}/{run_id}-{number}", b""):
                return number
        return limit + 1

    def release(self, name: str, *, run_id: str, starts: int) -> None:
        """Forget the starts of what got through in the end.

        Not it, but something in the same block or on the same machine, had ended its workers. A
        task that Ray replays time and again must not run out of starts for what is fine in it.

        Args:
            starts: As many as `claim` has counted.
        """
        for number in range(1, starts + 1):
            self.store.delete(f"attempts/{name}/{run_id}-{number}")

    def ensure_analysis(self, document: dict[str, Any]) -> None:
        """Fix how pass one computes, or prove that it still computes in the same way.

        Raises:
            PlanMismatchError: Naming what is different from the first start.
        """
        data = json.dumps(document, indent=1, sort_keys=True).encode()
        if self.store.create("analysis.json", data):
            return
        there = json.loads(self.store.read("analysis.json"))
        changes = [
            f"{key}: was {there.get(key)}, is {document.get(key)}"
            for key in sorted(there.keys() | document.keys())
            if there.get(key) != document.get(key)
        ]
        if changes:
            raise PlanMismatchError(
                f"{self.store.url} was begun differently ({'; '.join(changes)}); results of both "
                "must not be mixed. Go on as before, or use another work folder (--work)."
            )
