"""An output that was moved, or is reached by another path, keeps the shards that it has.

A commit record counts for the path it was made for. The record of another path, of a corpus of the
same identity, names bytes: where just these are in this output, its shard is done here, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from pipelines.observe import Progress
from pipelines.read_ahead import read_ahead
from pipelines.shards import ShardSpec
from pipelines.sinks.energon import INDEX_SUFFIX, energon_tar_index
from schemas.manifest import ShardCommit
from schemas.versions import FormatError

__all__ = ["adopt"]

_READERS = 4
"""Each holds a data file."""


def adopt(spec: ShardSpec, shards: Sequence[int], progress: Progress) -> set[int]:
    """Commit the shards whose files are here, as the record of another path describes them.

    Reads those files once, and nothing where the work folder knows no other path.

    Args:
        shards: Without a commit record.

    Returns:
        Those that have one now.
    """
    folders = [f"commits/{name}" for name in spec.work.store.entries("commits")[0]]
    same = f"commits/{spec.key[:16]}-"
    others = [path for path in folders if path.startswith(same) and path != spec.commits]
    adopted: set[int] = set()
    if not others:
        return adopted
    for shard, found in read_ahead(shards, lambda s: _adopt(spec, s, others), ahead=_READERS):
        progress.tick()
        if found is not None:
            adopted.add(shard)
            progress.advance(windows=found.totals.clips, tokens=found.totals.tokens)
            progress.item_done(0)
    return adopted


def _adopt(spec: ShardSpec, shard: int, others: Sequence[str]) -> ShardCommit | None:
    for folder in others:
        try:
            commit = ShardCommit.from_bytes(spec.work.store.read(f"{folder}/{shard:06d}.json"))
        except (FileNotFoundError, FormatError):
            continue
        if commit.tokens_key == spec.key and _is_here(spec, commit):
            spec.work.store.publish(spec.commit_path(shard), commit.to_bytes())
            return commit
    return None


def _is_here(spec: ShardSpec, commit: ShardCommit) -> bool:
    for file in commit.files:
        try:
            data = spec.output.read(file.path)
        except FileNotFoundError:
            return False
        if hashlib.sha256(data).hexdigest() != file.sha256:
            return False
        if file.format == "webdataset":
            spec.output.publish(file.path + INDEX_SUFFIX, energon_tar_index(data))
    return True
