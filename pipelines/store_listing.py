"""Listing a store object by object, in the order of their paths, in little memory where it can."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["entries_local", "entries_remote", "find_local", "find_remote", "find_s3"]

Remote = Callable[..., Any]
"""`pipelines.storage.Store.remote`."""


def find_local(root: Path, *, hidden: str) -> Iterator[tuple[Path, int]]:
    """Files below a folder with their sizes; names that begin with ``hidden`` are left out."""
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            if name.startswith(hidden):
                continue
            path = Path(folder, name)
            # A file may vanish between listing and stat: another run collects garbage.
            with contextlib.suppress(FileNotFoundError):
                yield path, path.stat().st_size


def find_remote(remote: Remote, url: str) -> Iterator[dict[str, Any]]:
    """What fsspec knows of each object; holds all of it.

    Not fsspec's ``walk``, which leaves out folders it may not list, without a word.
    """
    try:
        found = remote("find", url, detail=True)
    except FileNotFoundError:
        return
    for name in sorted(found):
        # A web page without links comes as a file of which nothing is known.
        if found[name]:
            yield found[name]


def find_s3(remote: Remote, url: str) -> Iterator[dict[str, Any]]:
    """The same page by page: s3fs' own ``find`` takes 1.5 GB for a million objects."""
    bucket, _, key = url.split("://", 1)[1].partition("/")
    key = key.rstrip("/")
    options = {"Bucket": bucket, "Prefix": f"{key}/" if key else ""}
    while True:
        page = remote("call_s3", "list_objects_v2", **options)
        for item in page.get("Contents", ()):
            # Not a copy: there may be ten million.
            item["name"], item["size"] = f"{bucket}/{item['Key']}", item["Size"]
            item["type"] = "file"
            yield item
        if not page.get("IsTruncated"):
            return
        options["ContinuationToken"] = page["NextContinuationToken"]


def entries_local(root: Path, *, hidden: str) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files right below one."""
    if not root.is_dir():
        return [], []
    folders: list[str] = []
    files: list[str] = []
    with os.scandir(root) as entries:
        for entry in entries:
            if not entry.name.startswith(hidden):
                (folders if entry.is_dir() else files).append(entry.name)
    return sorted(folders), sorted(files)


def entries_remote(remote: Remote, url: str) -> tuple[list[str], list[str]]:
    """The same of a remote folder."""
    try:
        found = remote("ls", url, detail=True)
    except FileNotFoundError:
        return [], []
    names: dict[str, list[str]] = {"directory": [], "file": []}
    for info in found:
        names[info["type"]].append(info["name"].rstrip("/").rsplit("/", 1)[-1])
    return sorted(names["directory"]), sorted(names["file"])
