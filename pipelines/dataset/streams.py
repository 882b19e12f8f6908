"""Who takes which items, and how far all are: one number that any other team can go on from.

A step is what all ranks take together: ``batch_size`` items each, in order of the rank. On a rank
the workers take turns, as a DataLoader asks them. After T steps exactly the first
``T * world_size * batch_size`` items of the order are gone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import torch.distributed
from torch.utils.data import get_worker_info

__all__ = ["Progress", "Stream", "find_progress", "of_team", "rank_and_world_size"]

_MARK = "infotok_progress"
# Of torchdata: batches handed out since the workers' states were taken.
_SINCE = "_steps_since_snapshot"


def rank_and_world_size() -> tuple[int, int]:
    """Of torch.distributed if it runs, else what torchrun put into the environment, else (0, 1)."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One worker of one rank.

    Raises:
        ValueError: If a number is out of its range.
    """

    rank: int
    world_size: int
    worker: int
    num_workers: int
    batch_size: int

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank {self.rank} of {self.world_size}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size {self.batch_size} must be at least 1")

    @classmethod
    def here(cls, rank: int, world_size: int, batch_size: int) -> Stream:
        """The one of this process."""
        info = get_worker_info()
        return cls(
            rank=rank,
            world_size=world_size,
            worker=0 if info is None else info.id,
            num_workers=1 if info is None else info.num_workers,
            batch_size=batch_size,
        )

    def require_step(self, total: int) -> None:
        """Refuse an epoch of which nothing would be left: a trainer would be done in no time.

        Raises:
            ValueError: If not every rank gets a whole batch.
        """
        if total < self.world_size * self.batch_size:
            raise ValueError(
                f"{total} items are no whole step of {self.world_size} ranks with batch_size "
                f"{self.batch_size}, so that nothing would be left of the epoch: take smaller "
                "batches, or drop_last=False"
            )

    def indices(self, base: int, taken: int, total: int, *, drop_last: bool) -> Iterator[int]:
        """Items of the order that are this stream's, from its ``taken``-th on.

        Args:
            base: Where the team started.
            taken: How many this stream took since.
            total: Items of the epoch.
            drop_last: Leave out the step that does not have ``batch_size`` items for every rank.
        """
        share = self.world_size * self.batch_size
        end = base + (total - base) // share * share if drop_last else total
        while True:
            own_step, within = divmod(taken, self.batch_size)
            step = self.worker + own_step * self.num_workers
            index = base + step * share + self.rank * self.batch_size + within
            if index >= end:
                return
            yield index
            taken += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a stream is.

    Attributes:
        identity: Digest of the corpus and of what decides its order.
        epoch: Which one.
        total: Its items.
        base: Where the team started.
        taken: Items of this stream since.
        world_size: Of the team.
        num_workers: Of each rank.
        batch_size: Items of a step and rank.
    """

    identity: str
    epoch: int
    total: int
    base: int = 0
    taken: int = 0
    world_size: int = 1
    num_workers: int = 1
    batch_size: int = 1

    def to_state(self) -> dict[str, Any]:
        """As a state dict."""
        return {_MARK: 1, **asdict(self)}

    def fits(self, stream: Stream) -> bool:
        """Whether ``taken`` means the same to this stream."""
        mine = self.world_size, self.num_workers, self.batch_size
        return not self.taken or mine == (
            stream.world_size, stream.num_workers, stream.batch_size
        )  # fmt: skip


def find_progress(state: Mapping[str, Any]) -> Progress:
    """The progress in a state: of one stream as it is, of a loader as that of its team.

    Args:
        state: Of a `TokenDataset`, or of a StatefulDataLoader over one on any rank.

    Raises:
        ValueError: If there is none, or it does not say how far the team is.
    """
    if _MARK in state:
        return _progress(state)
    found = list(_states(state))
    if not found:
        raise ValueError("this is no state of a token dataset or of a loader over one")
    return of_team(found, since=int(state.get(_SINCE, 0)))


def of_team(found: Sequence[Progress], *, since: int = 0) -> Progress:
    """How far a team is, in terms that mean the same to any other.

    Args:
        found: The progress of every worker of one rank; the ranks took equally many steps.
        since: Steps of that rank that ``found`` does not know of yet.

    Raises:
        ValueError: If these are not all workers of a rank, they stopped within a step, or their
            loader has another batch size than it told.
    """
    first = found[0]
    same = {replace(progress, taken=0, total=0) for progress in found}
    if len(same) > 1 or len(found) != first.num_workers:
        raise ValueError(
            f"the state of {len(found)} of {first.num_workers} workers, with {first.world_size} "
            f"ranks and batch_size {first.batch_size}, does not say how far the team is: another "
            "team needs the state of the whole loader"
        )
    _require_turns(found)
    share = first.world_size * first.batch_size
    whole, rest = divmod(sum(progress.taken for progress in found), first.batch_size)
    end = first.base + (whole + since) * share
    total = max(progress.total for progress in found)
    if rest and first.world_size * first.num_workers == 1:
        end += rest
    elif rest and (end + share < total or (total - end) % first.batch_size != rest):
        raise ValueError("the state was taken within a batch: take it between two batches")
    elif rest:
        end = total
    # Before a loader has begun, no total is known: then nothing was taken either.
    return Progress(
        identity=first.identity,
        epoch=first.epoch,
        total=total,
        base=min(end, total) if end > first.base else first.base,
    )


def _require_turns(found: Sequence[Progress]) -> None:
    """Workers take whole batches in turns, and only the last of all may be a part of one."""
    size, taken = found[0].batch_size, [progress.taken for progress in found]
    if max(taken) - min(taken) > size or sum(count % size > 0 for count in taken) > 1:
        raise ValueError(
            f"the workers took {' and '.join(map(str, taken))} items, which are no batches of "
            f"{size} in turns: tell the dataset the batch_size of its loader"
        )


def _states(value: Any) -> Iterator[Progress]:  # noqa: ANN401  whatever a loader stores
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        if _MARK in fields:
            yield _progress(fields)
            return
        for inner in fields.values():
            yield from _states(inner)


def _progress(state: Mapping[str, Any]) -> Progress:
    fields = {name: value for name, value in state.items() if name != _MARK}
    try:
        return Progress(**fields)
    except TypeError as error:
        raise ValueError(
            f"the state of the token dataset is of another release: {error}"
        ) from error
