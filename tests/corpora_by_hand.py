"""Finished corpora from hand-made windows, and a store that dies at a chosen write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from work_folders import Videos, analysed

from infotok_core.config import mini
from infotok_core.shape import shape_of
from pipelines.finalise import finalise
from pipelines.merging import CorpusPart
from pipelines.shards import shard_spec, tokenise_shard
from pipelines.storage import Store
from schemas.dealing import Rule


@contextmanager
def without_charts() -> Iterator[None]:
    """As where matplotlib is not installed: drawing is slow, and not what is tested there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.report.has_charts", lambda: False)
        yield


def made(
    root: Path,
    videos: Videos,
    *,
    output: Store | None = None,
    rule: Rule | None = None,
    **changes: Any,
) -> CorpusPart:
    """A finished corpus in ``root/out``, or elsewhere, of several shards.

    Args:
        rule: None solves one.
        changes: Fields of the routing or of the output.
    """
    done = analysed(root / "work", videos, shard_source_bytes=1500, **changes)
    statistics = done.statistics()
    store = output or Store(str(root / "out"))
    spec = shard_spec(done.config, done.plan, done.work, store, statistics, rule=rule)
    for shard in range(spec.plan.head.shards):
        tokenise_shard(spec, shard)
    finalise(spec, statistics, shape_of(mini()))
    return CorpusPart.read(store)


def bytes_of(store: Store) -> dict[str, bytes]:
    """Every object."""
    return {path: store.read(path) for path, _ in store.list()}


class KilledError(Exception):
    """Raised instead of a write."""


class DyingStore(Store):
    """Dies instead of a write, after as many as it is told."""

    def __init__(self, url: str, writes: int) -> None:
        super().__init__(url)
        self._left = writes

    def publish(self, path: str, data: bytes) -> None:
        self._count()
        super().publish(path, data)

    def replace(self, path: str, data: bytes) -> None:
        self._count()
        super().replace(path, data)

    def _count(self) -> None:
        if not self._left:
            raise KilledError
        self._left -= 1
