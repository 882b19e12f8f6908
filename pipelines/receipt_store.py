"""The receipts of a plan: loose ones as they come, and those of a finished block in one object.

```
videos/{video_id}.json                        a receipt, from the moment its video is finished
receipts/{block}/{generation}.parquet         all receipts of a block: consecutive rows of the plan
receipts/{block}/{generation}-reopened.json   videos of that pack that are to run again
```

A pack is published when every video of its block is finished, and its loose receipts are deleted
behind it. Its name follows from the plan, and it may be taken only once. **A pack counts, and loose
receipts of its videos do not**, except for reopened ones: so it makes no difference where between
publishing and deleting a driver dies, and a late writer of a dead one changes nothing. Only the
highest generation counts: it is made when all reopened videos are finished again.

A resume therefore lists one name per 4096 finished videos, and reads none of them.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import ConflictError, PipelineError
from pipelines.id_set import IdSet
from pipelines.plan import Plan
from pipelines.read_ahead import read_ahead
from pipelines.storage import Store
from schemas.plan import BLOCK_VIDEOS
from schemas.receipt_packs import PackedReceipt, ReopenedVideos, decode_pack, encode_pack
from schemas.receipts import VideoReceipt
from schemas.versions import FormatError

__all__ = ["ReceiptStore", "block_folder"]

_FOLDER = "receipts"
_LOOSE = "videos"
_READERS = 16
_PACKS_AHEAD = 4
_DIGITS = 3
_NONE: frozenset[str] = frozenset()

Row = Mapping[str, Any]
"""Of a plan."""


@dataclass(frozen=True, slots=True)
class _Pack:
    """The pack of a block that counts."""

    generation: int
    reopened: frozenset[str] = _NONE


def block_folder(block: int) -> str:
    """The name of a block in every folder that has one for each."""
    return f"{block:06d}"


class ReceiptStore:
    """The receipts of one plan, as they were when this was made and as it changed them.

    Args:
        blocks: Only packs of these are looked for; None: of all.
    """

    def __init__(self, plan: Plan, store: Store, blocks: Iterable[int] | None = None) -> None:
        self._plan = plan
        self._store = store
        self._packs: dict[int, _Pack] = {}
        self._superseded: list[str] = []
        for block in [None] if blocks is None else blocks:
            self._look(block)

    def _look(self, block: int | None) -> None:
        folder = _FOLDER if block is None else f"{_FOLDER}/{block_folder(block)}"
        found: dict[int, list[tuple[int, str]]] = defaultdict(list)
        for path, _ in self._store.list(folder):
            _, number, name = path.split("/")
            found[int(number)].append((int(name[:_DIGITS]), path))
        for number, files in found.items():
            latest = max(generation for generation, _ in files)
            self._superseded += [path for generation, path in files if generation < latest]
            document = _reopened_path(number, latest)
            again = (latest, document) in files
            self._packs[number] = _Pack(latest, self._read_reopened(document) if again else _NONE)

    def _read_reopened(self, path: str) -> frozenset[str]:
        try:
            return frozenset(ReopenedVideos.from_bytes(self._store.read(path)).videos)
        except FormatError as error:
            raise PipelineError(f"{self._store.full(path)} is damaged: {error}") from error

    def is_packed(self, block: int) -> bool:
        """Whether all receipts of a block are in one object."""
        return block in self._packs and not self._packs[block].reopened

    def finished(self) -> NDArray[np.bool_]:
        """For each video of the plan, whether it has a receipt. Lists loose ones; reads none."""
        done = self._of_blocks(self._packs)
        reopened = [block for block, pack in self._packs.items() if pack.reopened]
        if reopened:
            ids = IdSet(video for block in reopened for video in self._packs[block].reopened)
            for part, column in self._ids(self._of_blocks(reopened)):
                done[part] &= ~ids.among(column)
        loose = self._loose()
        if len(loose):
            for part, column in self._ids(~done):
                done[part] |= loose.among(column)
        return done

    def _of_blocks(self, blocks: Iterable[int]) -> NDArray[np.bool_]:
        rows = np.zeros(self._plan.head.videos, bool)
        for block in blocks:
            rows[block * BLOCK_VIDEOS : (block + 1) * BLOCK_VIDEOS] = True
        return rows

    def _ids(self, wanted: NDArray[np.bool_]) -> Iterator[tuple[slice, Any]]:
        for start, table in self._plan.columns("video_id", wanted=wanted):
            yield slice(start, start + table.num_rows), table["video_id"]

    def put(self, receipt: VideoReceipt) -> None:
        """Publish the receipt of a finished video."""
        self._store.publish(_loose_path(receipt.video_id), receipt.published())

    def read(self, rows: Iterable[Row]) -> Iterator[VideoReceipt]:
        """Receipts in the order of ``rows``, read ahead; fastest when these are in plan order.

        Raises:
            FileNotFoundError: If a video is not finished.
            PipelineError: If a receipt is damaged.
        """
        groups = (
            (block, list(group)) for block, group in itertools.groupby(rows, itemgetter("block"))
        )
        with ThreadPoolExecutor(_READERS) as readers:
            for (_, group), packed in read_ahead(groups, self._read_pack, ahead=_PACKS_AHEAD):
                videos = [row["video_id"] for row in group]
                loose = self._read_loose((v for v in videos if v not in packed), readers)
                for video in videos:
                    data = packed[video] if video in packed else next(loose)
                    yield self._parsed(video, data)

    def units(self, block: int) -> int | None:
        """Number of units of a block; None if it is not packed."""
        return sum(row.units for row in self.packed(block)) if self.is_packed(block) else None

    def packed(self, block: int) -> list[PackedReceipt]:
        """The receipts of a pack that count; none if the block has none.

        Raises:
            PipelineError: If it is damaged.
        """
        pack = self._packs.get(block)
        if pack is None:
            return []
        path = _pack_path(block, pack.generation)
        try:
            rows = decode_pack(self._store.read(path))
        except FormatError as error:
            raise PipelineError(f"{self._store.full(path)} is damaged: {error}") from error
        return [row for row in rows if row.video_id not in pack.reopened]

    def pack(self, block: int, known: Mapping[str, PackedReceipt]) -> list[str]:
        """Put the receipts of a block, all of whose videos are finished, into one object.

        Args:
            known: Loose receipts that need not be read: they were published as they are here.

        Returns:
            The videos whose loose receipts are not needed any more.

        Raises:
            FileNotFoundError: If a video of the block is not finished.
            ConflictError: If the block was packed by another driver with other receipts.
        """
        if self.is_packed(block):
            return []
        before = self._packs.get(block)
        there = {row.video_id: row for row in self.packed(block)}
        videos = [row["video_id"] for row in self._plan.block(block)]
        loose = [video for video in videos if video not in there]
        try:
            found = self._found([video for video in loose if video not in known])
        except FileNotFoundError:
            self._look(block)
            if not self.is_packed(block):
                raise
            # Another driver was faster, and its pack counts.
            self._store.delete_all(_loose_path(video) for video in loose)
            return loose
        rows = [there.get(video) or known.get(video) or found[video] for video in videos]
        generation = 0 if before is None else before.generation + 1
        self._publish(block, generation, rows)
        self._packs[block] = _Pack(generation)
        # Nothing of what follows counts any more.
        self._store.delete_all(_loose_path(video) for video in loose)
        if before is not None:
            self._store.delete(_reopened_path(block, before.generation))
            self._store.delete(_pack_path(block, before.generation))
        return loose

    def reopen(self, block: int, videos: Sequence[str]) -> None:
        """Let videos of a block run again.

        Raises:
            OSError: If the store fails; then some are still finished.
        """
        for video in videos:
            # First: else an old loose receipt would count from the moment that the pack does not.
            self._store.delete(_loose_path(video))
        pack = self._packs.get(block)
        if pack is None or pack.reopened.issuperset(videos):
            return
        ids = pack.reopened | frozenset(videos)
        document = ReopenedVideos(videos=tuple(sorted(ids)))
        self._store.replace(_reopened_path(block, pack.generation), document.to_bytes())
        self._packs[block] = _Pack(pack.generation, ids)

    def quarantined(self, block: int) -> list[PackedReceipt]:
        """The receipts of a block's videos that were set aside; unfinished ones are passed over."""
        rows = self.packed(block)
        if not self.is_packed(block):
            there, loose = {row.video_id for row in rows}, self._loose()
            videos = (row["video_id"] for row in self._plan.block(block))
            rows += self._found([v for v in videos if v not in there and v in loose]).values()
        return [row for row in rows if row.reason is not None]

    def delete_shadowed(self) -> None:
        """Delete what does not count any more: loose receipts, if all blocks are packed."""
        self._store.delete_all(self._superseded)
        if all(self.is_packed(block) for block in range(self._plan.blocks)):
            self._store.delete_folder(_LOOSE)

    def _loose(self) -> IdSet:
        return IdSet(
            path.removeprefix(f"{_LOOSE}/").removesuffix(".json")
            for path, _ in self._store.list(_LOOSE)
        )

    def _read_pack(self, group: tuple[int, list[Row]]) -> dict[str, bytes]:
        return {row.video_id: row.receipt for row in self.packed(group[0])}

    def _read_loose(self, videos: Iterable[str], readers: ThreadPoolExecutor) -> Iterator[bytes]:
        paths = map(_loose_path, videos)
        return (data for _, data in read_ahead(paths, self._store.read, pool=readers))

    def _found(self, videos: Sequence[str]) -> dict[str, PackedReceipt]:
        # The bytes as they lie there: a pack never differs from what it was made from.
        with ThreadPoolExecutor(_READERS) as readers:
            read = zip(videos, self._read_loose(videos, readers), strict=True)
            return {
                video: PackedReceipt.of(self._parsed(video, data))._replace(receipt=data)
                for video, data in read
            }

    def _parsed(self, video: str, data: bytes) -> VideoReceipt:
        try:
            return VideoReceipt.from_bytes(data)
        except FormatError as error:
            path = self._store.full(_loose_path(video))
            raise PipelineError(f"{path} is damaged: {error}") from error

    def _publish(self, block: int, generation: int, rows: Sequence[PackedReceipt]) -> None:
        path = _pack_path(block, generation)
        # Another version of pyarrow writes the same receipts as other bytes.
        if not self._store.create(path, encode_pack(rows)) and decode_pack(
            self._store.read(path)
        ) != list(rows):
            raise ConflictError(
                f"{self._store.full(path)} already exists with other receipts; the first was kept"
            )


def _loose_path(video: str) -> str:
    return f"{_LOOSE}/{video}.json"


def _pack_path(block: int, generation: int) -> str:
    return f"{_FOLDER}/{block_folder(block)}/{generation:0{_DIGITS}d}.parquet"


def _reopened_path(block: int, generation: int) -> str:
    return f"{_FOLDER}/{block_folder(block)}/{generation:0{_DIGITS}d}-reopened.json"
