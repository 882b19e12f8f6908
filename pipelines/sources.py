"""Which videos there are: a folder, a bucket prefix, a glob, one file, or a manifest of URIs.

Nothing is opened here. Every object gets the URI by which the corpus knows it: its path relative to
the source root, in the canonical spelling of `schemas.ids.quote_path`, so that a corpus made from a
bucket equals the one made from a copy on disk.
"""

from __future__ import annotations

import functools
import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pyarrow as pa
from fsspec.utils import glob_translate

from pipelines.config import SourceConfig, StorageConfig
from pipelines.errors import PipelineError
from pipelines.reachable import check_reachable
from pipelines.source_manifest import MANIFEST_SUFFIXES, read_manifest
from pipelines.source_versions import object_version, stat_object
from pipelines.storage import Store, is_local
from pipelines.store_options import is_web, listed_name
from schemas.ids import quote_path, unquote_path

__all__ = ["Source", "SourceObject", "open_source", "source_url"]

_MAGIC = frozenset("*?[")
_PATTERN = re.compile(r"[*\[]")
"""In an address of the web a question mark begins a query."""
_MISSING = "missing"
_NO_EXTRA: Mapping[str, Any] = MappingProxyType({})
"""One for all: a million empty dicts are 64 MB."""


class SourceObject(NamedTuple):
    """One listed object.

    Attributes:
        uri: Canonical path relative to the source root.
        size: Bytes; 0 if the object could not be looked at.
        version: ETag, else size and modification time, as far as the listing knows them;
            ``missing`` if it could not be looked at.
        extra: The other columns of its manifest row.
    """

    uri: str
    size: int
    version: str
    extra: Mapping[str, Any] = _NO_EXTRA


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A source root and the lazy listing of its objects.

    Attributes:
        root: Local folder or URL that every URI is relative to.
        extra_schema: Columns of a manifest that ride along into the rows; empty otherwise.
        url: What was asked for: the root itself, a file, a glob, a manifest.
    """

    root: str
    objects: Iterator[SourceObject]
    extra_schema: pa.Schema = field(default_factory=lambda: pa.schema([]))
    url: str = ""


def source_url(root: str, uri: str) -> str:
    """Where the object with this URI is: a local path (maybe with surrogate escapes) or a URL."""
    path = unquote_path(uri)
    # As it is spelt: what is escaped is part of a name, see `_below`.
    is_absolute = "://" in uri or uri.startswith("/")
    return path if is_absolute else f"{root.rstrip('/')}/{path}"


def open_source(
    url: str,
    config: SourceConfig,
    storage: StorageConfig,
    *,
    exclude_roots: Sequence[str] = (),
    extra_types: Mapping[str, str] | None = None,
) -> Source:
    """Find out what ``url`` names, and start listing it.

    Args:
        url: Folder, bucket prefix, glob, single file or manifest (.csv, .jsonl, .parquet). A folder
            of a web server only by a glob: its page may link to anything, or to nothing.
        exclude_roots: Output and work roots: never listed, should they lie inside the source.
        extra_types: Arrow's names of the types that columns of a manifest have in the corpus it is
            for; None: what the file says.

    Raises:
        PipelineError: If there is nothing, a page of a web server, or a manifest without a URI
            column.
        StorageError: If the store does not answer.
    """
    store = Store(url, storage)
    check_reachable(store)
    kind = _kind(store, url)
    if kind == "file":
        folder, name = posixpath.split(store.url)
        if name.lower().endswith(MANIFEST_SUFFIXES):
            return _from_manifest(Store(folder, storage), name, config, extra_types)
        item = _stat(Store(folder, storage), quote_path(name))
        return Source(url=url, root=folder, objects=iter([item]))
    # A name that is there is meant literally, brackets and all.
    if (kind is None and _MAGIC.intersection(url)) or (kind == "page" and _PATTERN.search(url)):
        root, pattern = _split_glob(url)
        objects = _list(Store(root, storage), config, exclude_roots, glob=f"/{pattern}")
        return Source(url=url, root=root, objects=objects)
    if kind is None:
        raise PipelineError(f"input {url} does not exist")
    if kind == "page":
        raise PipelineError(
            f"input {url} is a web page or a folder of a web server, which cannot be listed "
            f"reliably: name its videos by a glob ({store.url}/*.mp4) or a manifest of URLs"
        )
    return Source(url=url, root=store.url, objects=_list(store, config, exclude_roots))


def _kind(store: Store, url: str) -> str | None:
    """``file``, ``directory``, ``page`` (of a web server), or None if there is no such thing."""
    if store.local:
        path = Path(store.url)
        return "file" if path.is_file() else "directory" if path.is_dir() else None
    try:
        found = store.remote("info", store.url)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PipelineError(f"the input cannot be looked at: {error}") from error
    # To fsspec everything on a web server is a file; it was asked without the slash at the end.
    if is_web(url) and (url.endswith("/") or found.get("mimetype") == "text/html"):
        return "page"
    return found["type"]


def _split_glob(url: str) -> tuple[str, str]:
    parts = url.split("/")
    first = next(i for i, part in enumerate(parts) if _MAGIC.intersection(part))
    root = "/".join(parts[:first]) or ("/" if url.startswith("/") else ".")
    return Store(root).url, "/".join(parts[first:])


def _list(
    store: Store, config: SourceConfig, exclude_roots: Sequence[str], *, glob: str | None = None
) -> Iterator[SourceObject]:
    walk = _walk_local if store.local else _walk_remote
    # One that matches every name is not asked ten million times.
    include = None if "*" in config.include else config.include
    choosy = glob is not None or include is not None or bool(config.exclude)
    try:
        for item in walk(store, exclude_roots):
            if choosy:
                path = unquote_path(item.uri)
                included = include is None or any(_matches(path, pattern) for pattern in include)
                excluded = any(_matches(path, pattern) for pattern in config.exclude)
                if not included or excluded or not (glob is None or _matches(path, glob)):
                    continue
            yield item
    except OSError as error:
        raise PipelineError(f"the input cannot be listed: {error}") from error


def _matches(path: str, pattern: str) -> bool:
    # As in .gitignore: a pattern without a slash speaks of the file name alone.
    name = path if "/" in pattern else posixpath.basename(path)
    return _compiled(pattern).fullmatch(name) is not None


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(glob_translate(pattern.removeprefix("/")))


def _walk_local(store: Store, exclude_roots: Sequence[str]) -> Iterator[SourceObject]:
    excluded = {os.path.realpath(Store(root).url) for root in exclude_roots if is_local(root)}
    ancestors: dict[str, frozenset[str]] = {store.url: frozenset({os.path.realpath(store.url)})}
    # Folder links are followed, but never back into a folder we are inside of.
    for folder, folders, names in os.walk(store.url, onerror=_raise, followlinks=True):
        inside = ancestors.pop(folder)
        keep = []
        for name in sorted(folders):
            path = os.path.join(folder, name)  # noqa: PTH118  may hold surrogate escapes
            real = os.path.realpath(path)
            if name.startswith(".") or real in excluded or real in inside:
                continue
            ancestors[path] = inside | {real}
            keep.append(name)
        folders[:] = keep
        for name in sorted(names):
            if not name.startswith("."):
                relative = os.path.relpath(os.path.join(folder, name), store.url)  # noqa: PTH118
                yield _stat(store, quote_path(relative))


def _raise(error: OSError) -> None:
    # By default os.walk leaves out a folder that it may not read.
    raise error


def _walk_remote(store: Store, exclude_roots: Sequence[str]) -> Iterator[SourceObject]:
    base = f"{listed_name(store.url)}/"
    above = f"{_without_scheme(store.url)}/"
    excluded = tuple(f"{_without_scheme(root)}/" for root in exclude_roots if not is_local(root))
    for info in store.find(store.url):
        name = info["name"]
        path = name[len(base) :]
        hidden = "/." in path or path[:1] == "."
        # A name that ends in a slash marks an empty folder.
        if hidden or not name.startswith(base) or name[-1] == "/":
            continue
        if excluded and f"{above}{path}".startswith(excluded):
            continue
        uri = _below(quote_path(path))
        if info["size"] is None:
            # A page of links says no more than names.
            yield _stat(store, uri)
        else:
            yield SourceObject(uri, int(info["size"]), object_version(info))


def _below(uri: str) -> str:
    # The key of an object may look like a path of this machine or like the URL of anything, which a
    # worker would open instead of it. Only a manifest may name what is elsewhere.
    if uri.startswith("/"):
        uri = f"%2F{uri[1:]}"
    return uri.replace("://", ":%2F/")


def _without_scheme(url: str) -> str:
    return url.split("://", 1)[1].rstrip("/")


def _stat(store: Store, uri: str, extra: Mapping[str, Any] | None = None) -> SourceObject:
    url = source_url(store.url, uri)
    # Listed, but not there or not readable: decoding will say which, in a quarantine row. Of a
    # bucket anything else is trouble of the moment, and no plan is to be built on that.
    missing = (OSError, ValueError) if is_local(url) else (FileNotFoundError, PermissionError)
    try:
        size, version = stat_object(store, url)
    except missing:
        size, version = 0, _MISSING
    return SourceObject(uri=uri, size=size, version=version, extra=extra or _NO_EXTRA)


def _from_manifest(
    store: Store, name: str, config: SourceConfig, types: Mapping[str, str] | None
) -> Source:
    data = store.read(name)
    uris, extra = read_manifest(
        data, name=store.full(name), uri_column=config.uri_column, types=types
    )
    uris = [uri.removeprefix("file://") if uri.startswith("file:///") else uri for uri in uris]
    root = store.url
    if uris and all("://" in uri or uri.startswith("/") for uri in uris):
        common = os.path.commonprefix(uris)  # noqa: RUF071  cut at a slash in the next line
        root = common[: common.rfind("/")]
        # Several buckets have no common root: their URIs stay absolute.
        root = "" if root.endswith(":/") else root
        uris = [uri[len(root) + 1 :] if root else uri for uri in uris]
    rows = extra.to_pylist() if extra.num_columns else [{}] * len(uris)
    for url in [root, *uris[:1]]:
        # A manifest on disk may speak of a bucket.
        check_reachable(Store(url, store.config))
    objects = _stat_all(Store(root or store.url, store.config), uris, rows)
    url = store.full(name)
    return Source(url=url, root=root, objects=objects, extra_schema=extra.schema)


def _stat_all(
    store: Store, uris: Sequence[str], extras: Sequence[Mapping[str, Any]]
) -> Iterator[SourceObject]:
    with ThreadPoolExecutor(16) as pool:
        pairs = zip(uris, extras, strict=True)
        yield from pool.map(lambda pair: _stat(store, quote_path(pair[0]), pair[1]), pairs)
