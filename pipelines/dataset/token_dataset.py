"""The dataset a trainer iterates over."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import IterableDataset, get_worker_info

from infotok_core.numbers_in_range import whole_number
from infotok_core.tokenizer import VideoCodec
from pipelines.config import StorageConfig
from pipelines.dataset.corpus import Corpus, open_corpus
from pipelines.dataset.detokenise import checkpoint_of, detokenise
from pipelines.dataset.packing import Packing, plan_packing
from pipelines.dataset.plans import Buckets, EpochPlan, Layout, plan_buckets, plan_samples
from pipelines.dataset.row_index import RowIndex, read_index
from pipelines.dataset.streams import Progress, Stream, find_progress, of_team, rank_and_world_size
from pipelines.dataset.unit_reader import UnitReader
from schemas.ids import digest
from schemas.info import CorpusInfo

__all__ = ["TokenDataset"]


class TokenDataset(IterableDataset[dict[str, Any]]):
    """A corpus of tokens as samples, packed contexts or padded batches.

    Each epoch has one order, a function of seed and epoch alone, of which every worker of every
    rank takes its share. Call `set_epoch` before each epoch, as with a DistributedSampler. It may
    be pickled, forked and spawned; nothing is shared between processes but the number of the epoch.

    Args:
        url: Folder or URL of the corpus.
        mode: None gives windows one by one (`samples.row_sample`), `Packing` contexts
            (`packing.plan_packing`; batch them with `collate`), `Buckets` padded batches
            (`plans.plan_buckets`; take them with ``batch_size=None``).
        seed: Of the order; None: the order of the corpus.
        lanes: Row groups that are read in turns: the buffer of the shuffle, and what all workers
            of all ranks together hold in memory. If it is a multiple of ranks * workers *
            ``batch_size``, no more than that many row groups are read twice in an epoch. Part of
            the order: choose it once, for the largest team.
        batch_size: The ``batch_size`` of the DataLoader; 1 if that is None.
        drop_last: Leave out the last step if it does not have a whole batch for every rank. None:
            only if there are several ranks, which would wait for one another otherwise.
        columns: That ride along; None: all extra columns of the manifest of the videos.
        videos: Says for a video id whether its windows take part: to hold some out.
        rank: Of this process; None: see `streams.rank_and_world_size`.
        world_size: Likewise.
        format: ``parquet`` or ``webdataset``; None: Parquet if there is.
        unit_rows: Rows to read together; None: a row group.
        verify: See `UnitReader`.
        storage: How to reach the store.

    Raises:
        IncompleteError: If there is no corpus.
        FormatError: If one of its heads or, with a mode or ``videos``, its files is damaged.
        ValueError: If arguments do not fit the corpus or each other.
    """

    def __init__(
        self,
        url: str | Path,
        mode: Packing | Buckets | None = None,
        *,
        seed: int | None = 0,
        lanes: int = 16,
        batch_size: int = 1,
        drop_last: bool | None = None,
        columns: Sequence[str] | None = None,
        videos: Callable[[str], bool] | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        format: Literal["parquet", "webdataset"] | None = None,
        unit_rows: int | None = None,
        verify: Literal["pages", "sha256"] = "pages",
        storage: StorageConfig | None = None,
    ) -> None:
        super().__init__()
        # A notebook has no type checker.
        if not isinstance(mode, Packing | Buckets | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"mode must be None, a Packing or Buckets, not {mode!r}")
        self._seed = None if seed is None else whole_number("seed", seed)
        self._lanes = whole_number("lanes", lanes)
        self._batch_size = whole_number("batch_size", batch_size)
        if self._lanes < 1:
            raise ValueError(f"lanes {lanes} must be at least 1")
        if (rank is None) != (world_size is None):
            raise ValueError("rank and world_size are given together or not at all")
        here = rank_and_world_size()
        self._rank = here[0] if rank is None else whole_number("rank", rank)
        self._world_size = here[1] if world_size is None else whole_number("world_size", world_size)
        Stream.here(self._rank, self._world_size, self._batch_size)
        self._corpus = open_corpus(str(url), format=format, unit_rows=unit_rows, storage=storage)
        if mode is not None:
            mode.specials.check(self.info.tokenizer)
        self._mode = mode
        self._drop_last = self._world_size > 1 if drop_last is None else drop_last
        self._columns = tuple(self.info.extra_columns if columns is None else columns)
        self._reader = UnitReader(self._corpus, self._columns, verify=verify)
        self._index: RowIndex | None = None
        if mode is not None or videos is not None:
            self._index = read_index(self._corpus, self._reader, videos=videos)
        self._identity = self._digest()
        # In shared memory: workers that outlive an epoch have to learn of the next one.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._resumed: Progress | None = None
        # In shared memory, too: the pass that went on from it; workers are forked for each pass.
        self._resumed_by = torch.full((1,), -1, dtype=torch.int64).share_memory_()
        self._progress: Progress | None = None
        self._tokenizer: VideoCodec | None = None

    @property
    def corpus(self) -> Corpus:
        """What it reads."""
        return self._corpus

    @property
    def info(self) -> CorpusInfo:
        """Head of the corpus: tokenizer, rates, totals."""
        return self._corpus.info

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration gives."""
        return int(self._epoch.item())

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration; also reaches workers that are kept.

        Raises:
            ValueError: If it is negative.
        """
        if epoch < 0:
            raise ValueError(f"epoch {epoch} must not be negative")
        if epoch != self.epoch:
            self._progress = None
        self._epoch.fill_(epoch)

    def num_items(self) -> int:
        """Samples, contexts or batches of this epoch over all ranks; those dropped included."""
        return len(self._plan())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        plan = self._plan()
        stream = Stream.here(self._rank, self._world_size, self._batch_size)
        progress = self._start(stream, len(plan))
        if self._drop_last and not progress.base:
            stream.require_step(len(plan))
        self._use_up_state()
        # Not in the generator: loaders ask for the state before they ask for the first item.
        self._progress = progress
        return self._items(plan, stream, progress)

    def state_dict(self) -> dict[str, Any]:
        """How far this process is; of the whole team, a StatefulDataLoader's state says it."""
        progress = self._progress
        if progress is None:
            stream = Stream.here(self._rank, self._world_size, self._batch_size)
            progress = self._start(stream, total=0)
        return progress.to_state()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a state: of this dataset, or of a StatefulDataLoader over one on any rank.

        The next pass over its epoch gives the rest of it, those after that all of it.

        The same team (ranks, workers, batch size) loads its loaders' states into its loaders. Any
        other team gives the state of one loader to this, on all ranks, and makes new loaders.

        Raises:
            ValueError: If the state is of another corpus or order, or of no use.
        """
        progress = find_progress(state_dict)
        if progress.identity != self._identity:
            raise ValueError(
                "the state belongs to another corpus or order: files, format, seed, lanes, mode "
                "and the choice of videos must be those of the state"
            )
        self._resumed = progress
        self._resumed_by.fill_(-1)
        self._progress = None
        self.set_epoch(progress.epoch)

    def detokenise(
        self,
        sample: Mapping[str, Any],
        *,
        checkpoint: str | Path | None = None,
        device: str = "cpu",
    ) -> npt.NDArray[np.uint8]:
        """The frames of a sample, uint8 [T, H, W, 3], by the tokenizer of the corpus.

        Args:
            sample: See `detokenise.detokenise`.
            checkpoint: See `checkpoint_of`; like ``device`` it counts in the first call alone.
            device: Where the network shall run.

        Raises:
            PlanMismatchError: If the tokenizer is another one or cannot be found.
            ValueError: If the sample does not fit together.
        """
        if self._tokenizer is None:
            self._tokenizer = checkpoint_of(self.info, checkpoint, device=device)
        return detokenise(sample, self._tokenizer)

    def __getstate__(self) -> dict[str, Any]:
        # A network of a few hundred MB has no business in the workers.
        return {**self.__dict__, "_tokenizer": None}

    def _state_of_pass(self) -> Progress | None:
        """What this pass over the epoch goes on from: a state is gone on from once."""
        if self._resumed is None or self._resumed.epoch != self.epoch:
            return None
        by = int(self._resumed_by.item())
        return self._resumed if by in (-1, _this_pass()) else None

    def _use_up_state(self) -> None:
        if self._state_of_pass() is not None:
            self._resumed_by.fill_(_this_pass())
            self._resumed = None

    def _start(self, stream: Stream, total: int) -> Progress:
        resumed = self._state_of_pass()
        if resumed is None:
            resumed = Progress(identity=self._identity, epoch=self.epoch, total=total)
        if not resumed.fits(stream):
            resumed = of_team([resumed])
        return replace(
            resumed,
            total=total or resumed.total,
            world_size=stream.world_size,
            num_workers=stream.num_workers,
            batch_size=stream.batch_size,
        )

    def _items(
        self, plan: EpochPlan, stream: Stream, progress: Progress
    ) -> Iterator[dict[str, Any]]:
        indices = functools.partial(
            stream.indices, progress.base, total=len(plan), drop_last=self._drop_last
        )
        # A unit for each lane that this stream meets, and one for the next.
        period = itertools.islice(indices(taken=0), plan.num_lanes * self._batch_size)
        keep = len({index % plan.num_lanes for index in period}) + 1
        for index in indices(taken=progress.taken):
            item = plan.item(index, lambda unit: self._reader.rows(unit, keep=keep))
            progress = replace(progress, taken=progress.taken + 1)
            self._progress = progress
            yield item

    def _plan(self) -> EpochPlan:
        layout = Layout(
            corpus=self._corpus,
            index=self._index,
            columns=self._columns,
            seed=self._seed,
            epoch=self.epoch,
            lanes=self._lanes,
        )
        if self._index is None or self._mode is None:
            return plan_samples(layout)
        if isinstance(self._mode, Packing):
            return plan_packing(layout, self._index, self._mode)
        return plan_buckets(layout, self._index, self._mode)

    def _digest(self) -> str:
        mode = None if self._mode is None else [type(self._mode).__name__, asdict(self._mode)]
        rows = None if self._index is None else self._index.fingerprint()
        return digest([self._corpus.identity, mode, rows, self._seed, self._lanes])


def _this_pass() -> int:
    """The same in all workers of one pass over a DataLoader, and another in those of the next."""
    info = get_worker_info()
    return 0 if info is None else info.seed - info.id
