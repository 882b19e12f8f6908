"""Corpora put together to one: every data file stays as it is, under the number of a new shard.

```
parts ──agree? disjoint?──▶ data files under their new names ──▶ heads ──▶ manifest, last
```

Nothing is decoded or selected again. All names and bytes depend on the parts alone, so a merge that
was killed is simply done again.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pipelines.corpus_reader import CorpusReader, read_manifest
from pipelines.errors import PipelineError, PlanMismatchError
from pipelines.finalise import publish_heads
from pipelines.id_set import IdSet
from pipelines.sinks.energon import INDEX_SUFFIX, energon_tar_index
from pipelines.storage import Store
from schemas.ids import digest
from schemas.info import CorpusInfo, Generation, StatisticsSample, VideoCounts
from schemas.layout import INFO_PATH, QUARANTINE_PATH, STATISTICS_PATH, data_path
from schemas.manifest import DataFile, Totals
from schemas.quarantine import decode_quarantine
from schemas.statistics import ElboStatistics, merge_statistics
from schemas.versions import FormatError

__all__ = ["CorpusPart", "differences", "merge", "merged_key"]

_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusPart:
    """A finished corpus, as its heads describe it.

    Attributes:
        own_statistics: False if its rule was solved on the part before it.
    """

    store: Store
    info: CorpusInfo
    files: Sequence[DataFile]
    statistics: ElboStatistics
    quarantine: Sequence[dict[str, Any]]
    own_statistics: bool = True

    @classmethod
    def read(cls, store: Store, *, heads: Store | None = None) -> Self:
        """Read the heads of a corpus.

        Args:
            store: Where its data files are.
            heads: Where its heads are, if these were put aside.

        Raises:
            IncompleteError: If there is no manifest.
            PipelineError: If heads and manifest are not of one corpus: something was killed before
                it wrote the manifest.
            FormatError: If one is damaged.
        """
        place = heads or store
        files = read_manifest(place)
        info = CorpusInfo.from_bytes(place.read(INFO_PATH))
        if (len(files), sum(file.bytes for file in files)) != (info.files, info.num_bytes):
            raise PipelineError(
                f"{place.url}: {INFO_PATH} is not that of the manifest; finish what was started "
                "there (the same command goes on), and look with `infotok validate`"
            )
        return cls(
            store=store,
            info=info,
            files=files,
            statistics=ElboStatistics.from_bytes(place.read(STATISTICS_PATH)),
            quarantine=decode_quarantine(place.read(QUARANTINE_PATH)),
        )

    def video_ids(self) -> Iterator[str]:
        """The video of each row."""
        reader = CorpusReader(self.store, self.info, self.files)
        for (video,) in reader.sample(("video_id",), limit=self.info.totals.clips + 1):
            yield video


def differences(first: CorpusInfo, other: CorpusInfo) -> list[str]:
    """Why a trainer could not read both as one corpus; empty if it can."""

    def told(info: CorpusInfo) -> dict[str, object]:
        return {
            "tokenizer": info.tokenizer.fingerprint,
            "window": info.window,
            "space": info.space,
            # Measured and predicted information share no scale.
            "elbo_unit": info.elbo_unit,
            # The scale may be another: it belongs to the videos it was solved on.
            "budget": info.routing.budget,
            "rate": info.routing.target,
            "min_rate": info.routing.min_rate,
            "exponent": getattr(info.routing, "exponent", None),
            # What the `source` column is relative to, and video ids are digests of.
            "source_root": info.source_root,
            "formats": list(info.formats),
            "split": info.split,
            "licence": info.licence,
            "extra_columns": info.extra_columns,
        }

    one, two = told(first), told(other)
    return [f"{name}: {one[name]} and {two[name]}" for name in one if one[name] != two[name]]


def merged_key(parts: Sequence[CorpusPart]) -> str:
    """Identity of the corpus that a merge of these makes, however often its parts were merged."""
    keys = [run.tokens_key for part in parts for run in (part.info.generations or (part.info,))]
    return digest(keys)


def merge(
    parts: Sequence[CorpusPart], output: Store, *, begin: Callable[[], object] | None = None
) -> CorpusInfo:
    """Make one corpus of several; ``output`` may be the first of them.

    A video that one part has and another one had set aside is in the corpus.

    Args:
        parts: In order.
        output: Where it shall be.
        begin: Called when the parts fit together, before anything is written.

    Raises:
        PlanMismatchError: If the parts differ in what they are, or share a video; names what.
        StorageError: If a data file is gone, or a name is taken by other bytes.
    """
    for part in parts[1:]:
        if found := differences(parts[0].info, part.info):
            raise PlanMismatchError(
                f"{parts[0].store.url} and {part.store.url} cannot be one corpus:\n  "
                + "\n  ".join(found)
            )
    committed = _disjoint(parts)
    if begin is not None:
        begin()
    placed = list(_placed(parts))
    for part, pairs in zip(parts, placed, strict=True):
        for file, there in pairs:
            _copy(part.store, file, output, there)
    files = [there for pairs in placed for _, there in pairs]
    set_aside = {row["video_id"]: row for part in parts for row in part.quarantine}
    quarantine = [row for video, row in set_aside.items() if not _holds(committed, video)]
    info, statistics = _heads(parts, placed, files, quarantine)
    publish_heads(output, info, statistics, quarantine, files)
    return info


def _holds(sets: Collection[IdSet], video: str) -> bool:
    return any(video in ids for ids in sets)


def _disjoint(parts: Sequence[CorpusPart]) -> list[IdSet]:
    """The videos of each part, none of which another one has."""
    seen: list[IdSet] = []
    for part in parts:
        own = sorted(set(part.video_ids()))
        shared = [video for video in own if _holds(seen, video)]
        if shared:
            raise PlanMismatchError(
                f"{part.store.url} has {len(shared)} videos that a corpus before it has, too "
                f"(video ids {', '.join(shared[:_NAMED])})"
            )
        seen.append(IdSet(iter(own)))
    return seen


def _placed(parts: Sequence[CorpusPart]) -> Iterator[list[tuple[DataFile, DataFile]]]:
    """The files of each part, as they are and as they will be called."""
    first = 0
    for part in parts:
        yield [(file, _renamed(file, part.info.split, first)) for file in part.files]
        first += 1 + max((file.shard for file in part.files), default=-1)


def _renamed(file: DataFile, split: str, first: int) -> DataFile:
    number = int(posixpath.splitext(file.path)[0].rsplit("-", 1)[1])
    shard = first + file.shard
    path = data_path(file.format, split=split, shard=shard, part=number)
    return file.model_copy(update={"path": path, "shard": shard})


def _copy(source: Store, file: DataFile, output: Store, there: DataFile) -> None:
    if (source.url, file.path) == (output.url, there.path):
        return
    data = source.read(file.path)
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise FormatError(f"{source.full(file.path)} is not the file that its manifest lists")
    output.publish(there.path, data)
    if file.format == "webdataset":
        output.publish(there.path + INDEX_SUFFIX, energon_tar_index(data))


def _heads(
    parts: Sequence[CorpusPart],
    placed: Sequence[Sequence[tuple[DataFile, DataFile]]],
    files: Sequence[DataFile],
    quarantine: Sequence[dict[str, Any]],
) -> tuple[CorpusInfo, ElboStatistics]:
    generations: list[Generation] = []
    first = 0
    for part, pairs in zip(parts, placed, strict=True):
        generations += _generations(part, first)
        first = 1 + max((there.shard for _, there in pairs), default=first - 1)
    plan_id = digest([part.plan_id for part in generations])
    committed = sum(part.videos for part in generations)
    listed = committed + len(quarantine)
    statistics = merge_statistics(*(part.statistics for part in parts), plan_id=plan_id)
    # A video that was tried again was listed once.
    twice = sum(part.info.videos.listed for part in parts) - listed
    full = not statistics.is_sample
    statistics = statistics.model_copy(
        update={
            "num_listed": statistics.num_listed - twice,
            "num_sampled": statistics.num_sampled - (twice if full else 0),
        }
    )
    info = parts[0].info.model_copy(
        update={
            "plan_id": plan_id,
            "tokens_key": merged_key(parts),
            "statistics_digest": statistics.digest,
            "statistics_sample": StatisticsSample.of(statistics),
            "videos": VideoCounts(listed=listed, committed=committed, quarantined=len(quarantine)),
            "totals": sum((part.totals for part in generations), Totals()),
            "files": len(files),
            "num_bytes": sum(file.bytes for file in files),
            "reasons": dict(sorted(Counter(row["reason"] for row in quarantine).items())),
            "generations": tuple(generations),
        }
    )
    # Copies are not validated.
    return CorpusInfo.model_validate(info.model_dump()), statistics


def _generations(part: CorpusPart, first_shard: int) -> list[Generation]:
    info = part.info
    if info.generations:
        return [
            generation.model_copy(update={"first_shard": first_shard + generation.first_shard})
            for generation in info.generations
        ]
    own = Generation(
        plan_id=info.plan_id,
        tokens_key=info.tokens_key,
        routing=info.routing,
        own_statistics=part.own_statistics,
        statistics_digest=info.statistics_digest,
        videos=info.videos.committed,
        totals=info.totals,
        first_shard=first_shard,
    )
    return [own]
