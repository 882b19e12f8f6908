"""The work folder: what a run leaves behind as it goes, and what a resume finds.

```
plan.json plan.parquet        the listing, fixed
analysis.json                 on what kind of device, in what precision pass one computes; whether
                              it counts tokens
units/{block}/{unit_id}-{key}.parquet
                              analysis of 16 windows: codes and information
videos/{video_id}.json        receipt: the video is finished, one way or the other
receipts/{block}/…            all receipts of a block in one object: see `receipt_store`
timings/{run}-{stage}.json    how long it took; nothing depends on it
attempts/{block}/{id}/{run}-{n}
                              a start, noted before it happens: survives the death of its worker
                              (of a shard: attempts/{commit}/…; of an actor: attempts/actors/…)
statistics.json               the frozen statistics of pass one
commits/{tokens_key}-{output}/{shard}.json
                              a shard is written, in the output of this path
```

A block is 4096 consecutive videos of the plan: what is asked of a few videos is a listing of their
folders, however large the corpus is. "Done" is always an object one can list. The key in a unit's
name is a digest of everything its content depends on, the version of the source object included, so
that an object of an older source, tokenizer or policy is never taken for a current one.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipelines.errors import PipelineError, PlanMismatchError
from pipelines.read_ahead import read_ahead
from pipelines.receipt_store import block_folder
from pipelines.storage import Store
from schemas.ids import digest, unit_id
from schemas.receipts import UnitEntry

__all__ = ["LeftoverUnits", "WorkFolder"]

_LISTERS = 16
_UNNOTED = "start "
"""So begins the object of a start that has said nothing yet."""

LeftoverUnits = dict[str, list[tuple[int, str]]]
"""Video id to (unit index, key) of stored units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkFolder:
    """The store of a run and the digest of what pass one's objects depend on.

    Attributes:
        store: Root of the work folder.
        analysis_key: Digest over policy, tokenizer, device kind and precision.
        single_writer: The store may ignore that a name is taken.
    """

    store: Store
    analysis_key: str
    single_writer: bool = False

    def unit_path(self, video: str, version: str, unit_index: int, *, block: int) -> str:
        """Name of a unit object."""
        name = f"{unit_id(video, unit_index)}-{self._unit_key(version)}.parquet"
        return f"units/{block_folder(block)}/{name}"

    def _unit_key(self, version: str) -> str:
        return digest([self.analysis_key, version])[:12]

    def leftover_units(self, blocks: Iterable[int]) -> LeftoverUnits:
        """Units stored in some blocks, a listing for each: what killed runs left behind."""
        found: LeftoverUnits = defaultdict(list)
        folders = (f"units/{block_folder(block)}" for block in blocks)
        for folder, paths in read_ahead(folders, self._names, ahead=_LISTERS):
            for path in paths:
                name = path.removeprefix(f"{folder}/").removesuffix(".parquet")
                video, unit, key = name.split("-")
                found[video].append((int(unit[1:]), key))
        return dict(found)

    def _names(self, folder: str) -> list[str]:
        return [path for path, _ in self.store.list(folder)]

    def stored_units(self, leftovers: LeftoverUnits, video: str, version: str) -> list[int]:
        """Indices of the units of a video that need not be encoded again, in order."""
        key = self._unit_key(version)
        return sorted(index for index, found in leftovers.get(video, ()) if found == key)

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
        """Note a start before it happens. Names of starts: `start_name`.

        Starts are counted per run: a driver that is killed and started again says nothing about
        the video it was busy with, a worker that dies under a living driver does.

        Returns:
            The number of this start, from 1; ``limit + 1`` if it must not happen any more.
        """
        token = f"{_UNNOTED}{secrets.token_hex(8)}".encode()
        for number in range(1, limit + 1):
            path = f"attempts/{name}/{run_id}-{number}"
            if self.single_writer and self.store.exists(path):
                continue
            if self.store.take(path, token):
                return number
        return limit + 1

    def note(self, name: str, *, run_id: str, start: int, text: str) -> None:
        """Say how far a start has come, for the case that it goes no further."""
        self.store.replace(f"attempts/{name}/{run_id}-{start}", text.encode())

    def noted(self, name: str, *, run_id: str, start: int) -> str:
        """What a start said last; empty if it said nothing."""
        text = self.store.read(f"attempts/{name}/{run_id}-{start}").decode()
        return "" if text.startswith(_UNNOTED) else text

    def release(self, name: str, *, run_id: str, starts: int) -> None:
        """Forget the starts of what got through in the end.

        Not it, but something in the same block or on the same machine, had ended its workers. A
        task that Ray replays time and again must not run out of starts for what is fine in it.

        Args:
            starts: As many as `claim` has counted.
        """
        for number in range(1, starts + 1):
            self.store.delete(f"attempts/{name}/{run_id}-{number}")

    @staticmethod
    def start_name(folder: str, name: str) -> str:
        """By what the starts of a video or unit are counted.

        Args:
            folder: Of its block (`block_folder`).
            name: Video or unit id.
        """
        return f"{folder}/{name}"

    def forget_starts(self, block: int) -> None:
        """Forget all starts in a block, all of whose videos are finished."""
        self.store.delete_folder(f"attempts/{block_folder(block)}")

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
