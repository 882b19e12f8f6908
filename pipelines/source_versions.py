"""What tells two contents of one name apart: an ETag, or size and time, or the size alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pipelines.config import StorageConfig
from pipelines.storage import Store, is_local

__all__ = ["object_version", "other_version", "stat_object"]

_TAGS = ("ETag", "etag", "md5Hash", "checksum")
_TIMES = ("mtime", "LastModified", "Last-Modified", "last_modified", "modified")

_elsewhere: dict[tuple[str, StorageConfig], Store] = {}


def object_version(info: Mapping[str, Any]) -> str:
    """What tells two contents of one name apart, from an fsspec ``info``."""
    # Of a bucket's listing always, ten million times.
    tag = info.get("ETag")
    return str(tag).strip('"') if tag else _versions(info)[0]


def stat_object(store: Store, url: str) -> tuple[int, str]:
    """Bytes and version of an object as they are now.

    Args:
        url: In the store or, from a manifest, anywhere else.

    Raises:
        OSError: If it is not there or may not be read.
    """
    size, versions = _look(store, url)
    return size, versions[0]


def other_version(store: Store, url: str, planned: str) -> str | None:
    """The version of an object as it is now; None if that is the planned one.

    A plan may come from a listing that knew less: it then counts what the listing knew.

    Raises:
        OSError: If it is not there or may not be read.
    """
    _, versions = _look(store, url)
    return None if planned in versions else versions[0]


def _look(store: Store, url: str) -> tuple[int, tuple[str, ...]]:
    if is_local(url):
        status = os.stat(url)  # noqa: PTH116  may hold surrogate escapes
        return status.st_size, (f"{status.st_size}-{status.st_mtime_ns}",)
    if url.split("://")[0] != store.url.split("://")[0]:
        # One connection for all the rows of a manifest.
        bucket = "/".join(url.split("/")[:3])
        store = _elsewhere.setdefault((bucket, store.config), Store(bucket, store.config))
    info = store.remote("info", url)
    return int(info["size"] or 0), _versions(info)


def _versions(info: Mapping[str, Any]) -> tuple[str, ...]:
    """All that could, best first: an ETag, size and time, the size alone."""
    size = info.get("size", 0)
    tags = (str(info[key]).strip('"') for key in _TAGS if info.get(key))
    times = (f"{size}-{_in_seconds(info[key])}" for key in _TIMES if info.get(key))
    return *tags, *times, f"{size}-"


def _in_seconds(time: Any) -> str:  # noqa: ANN401  every store has its own
    # A listing of S3 may have milliseconds, where what is said of one object has none.
    return str(time.replace(microsecond=0) if isinstance(time, datetime) else time)
