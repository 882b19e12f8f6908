"""The places of a run: can the input be read, the output written to, and is there room?"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TypeVar

from pipelines.config import RunConfig
from pipelines.empty_folders import existing_folder, no_folders_left
from pipelines.errors import PipelineError, StorageError
from pipelines.findings import Finding, bad, doubtful, good
from pipelines.reachable import check_reachable
from pipelines.source_manifest import MANIFEST_SUFFIXES
from pipelines.sources import open_source, source_url
from pipelines.storage import Store
from pipelines.store_options import is_web
from pipelines.video_source import HEAD_BYTES, archive_kind
from pipelines.wording import compact

__all__ = [
    "check_disk",
    "check_scratch",
    "check_shared",
    "check_shared_memory",
    "check_source",
    "check_store",
]

_T = TypeVar("_T")
_WINDOW_BYTES = 50_000
"""Stored per window of 33x256x256: 36 kB of analysis, and rows at half of the tokens."""
_WINDOW_VOLUME = 33 * 256 * 256
_LEAST_FREE = 1 << 30
_LEAST_SHARED = 1 << 30
_RAY_FULL = 0.95
"""At this share Ray stops writing to a disk."""
_CREDENTIALS = (
    "the credentials (--profile, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, here and on every "
    "node)"
)


def check_source(url: str, config: RunConfig, *, at_most: int) -> tuple[int | None, Finding]:
    """Whether the input can be listed and read.

    Args:
        url: As a run takes it.
        config: Of the run.
        at_most: Objects to look at; those of a manifest are asked for one by one.

    Returns:
        The number of objects, so many at most; None if they cannot be listed.
    """
    count: int | None = None
    archive: str | None = None

    def first_bytes() -> str:
        nonlocal count, archive
        source = open_source(url, config.source, config.source_storage)
        found = list(islice(source.objects, at_most))
        if not found:
            raise PipelineError(f"{url} lists no object (see source.include)")
        archive = archive_kind(_head(source.root, found[0].uri, config))
        count = len(found)
        number = f"{count:,} objects" + (" or more" if count == at_most else "")
        is_one = f" is {archive}" if archive else ""
        return f"{url} lists and reads: {number}, first {found[0].uri}{is_one}"

    if "://" not in url:
        advice = "check the path, source.include and source.exclude, and that you may read there"
    elif is_web(url):
        advice = "of a web server a glob works, a manifest of URLs, or the URL of one video"
    else:
        advice = (
            f"check the name, --endpoint-url and {_CREDENTIALS}; listing needs s3:ListBucket, "
            "reading s3:GetObject"
        )
    finding = _tried("input", first_bytes, str, advice)
    if archive is not None:
        finding = doubtful("input", finding.what, "unpack it: videos in archives are not read")
    return count, finding


def _head(root: str, uri: str, config: RunConfig) -> bytes:
    place = source_url(root, uri)
    if Store(place).local:
        with Path(place).open("rb") as file:
            return file.read(HEAD_BYTES)
    store = Store(root, config.source_storage)
    return store.remote("cat_file", place, start=0, end=HEAD_BYTES)


def check_shared(source: str | None, stores: dict[str, Store], *, nodes: int) -> Finding | None:
    """Whether all nodes can reach what is asked for; None where there is nothing to say."""
    # A manifest is read by the driver alone; what it names may lie anywhere.
    is_folder = source is not None and not source.lower().endswith(MANIFEST_SUFFIXES)
    places = [Store(source)] if source is not None and is_folder else []
    folders = [store.url for store in (*places, *stores.values()) if store.local]
    if nodes < 2 or not folders:
        return None
    what = f"the cluster has {nodes} nodes, and of this machine are {', '.join(folders)}"
    return doubtful("shared", what, "all nodes must see them under the same path; or use a bucket")


def check_store(name: str, store: Store, *, single_writer: bool) -> Finding:
    """Whether it can be written to, and a name is taken only once."""

    def write() -> None:
        check_reachable(store)
        with no_folders_left(store):
            probe()

    def probe() -> None:
        try:
            store.check_conditional_writes()
        except StorageError:
            if not single_writer:
                raise
            # Without the condition it has to be written to all the same.
            store.replace("_probe-doctor", b"")
            store.delete("_probe-doctor")

    if store.local:
        advice = "check the path, and that you may write there"
    else:
        advice = (
            f"check the name, --endpoint-url and {_CREDENTIALS}; writing needs s3:PutObject, "
            "GetObject, ListBucket and DeleteObject. A store that ignores If-None-Match needs "
            "--single-writer, and one run at a time"
        )
    how = "only one writer" if single_writer else "a name is taken only once"
    return _tried(name, write, lambda _: f"{store.url} can be written to, {how}", advice)


def _tried(name: str, check: Callable[[], _T], told: Callable[[_T], str], advice: str) -> Finding:
    try:
        return good(name, told(check()))
    except (PipelineError, OSError) as error:
        return bad(name, str(error), advice)


def check_disk(name: str, folder: Path, config: RunConfig) -> Finding:
    """How many windows there is room for."""
    free = shutil.disk_usage(existing_folder(folder)).free
    volume = config.window.frames * config.space.size**2
    windows = round(free / (_WINDOW_BYTES * volume / _WINDOW_VOLUME))
    room = f"room for some {compact(windows)} windows (`infotok estimate` says how many come)"
    told = f"{free / 1e9:.0f} GB free: {room}"
    if free < _LEAST_FREE:
        return bad(f"{name} disk", told, "free some, or write elsewhere")
    return good(f"{name} disk", told)


def check_scratch(folder: Path) -> Finding:
    """Whether Ray can write its own files."""
    usage = shutil.disk_usage(existing_folder(folder))
    told = f"{folder}: {usage.free / 1e9:.0f} GB free"
    if usage.free < (1 - _RAY_FULL) * usage.total:
        return bad("scratch", f"{told}, and Ray stops at {_RAY_FULL:.0%}",
                    "free some, or set RAY_TMPDIR to another disk")  # fmt: skip
    return good("scratch", told)


def check_shared_memory(folder: Path) -> Finding:
    """Whether frames can pass from process to process."""
    total = shutil.disk_usage(folder).total
    told = f"{folder} of {total / 1e9:.1f} GB"
    if total < _LEAST_SHARED:
        advice = "give the container more: --shm-size=8g, or an emptyDir of medium Memory"
        return doubtful("shared memory", f"{told}: Ray falls back to slow files", advice)
    return good("shared memory", told)
