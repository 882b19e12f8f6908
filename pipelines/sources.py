"""Which videos there are: a folder, a bucket prefix, a glob, one file, or a manifest of URIs.

Nothing is opened here. Every object gets the URI by which the corpus knows it: its path relative to
the source root, in the canonical spelling of `schemas.ids.quote_path`, so that a corpus made from a
bucket equals the one made from a copy on disk.
"""

from __future__ import annotations

import fnmatch
import json
import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq

from pipelines.config import SourceConfig, StorageConfig
from pipelines.errors import PipelineError
from pipelines.storage import Store, is_local
from schemas.ids import quote_path, unquote_path

__all__ = ["Source", "SourceObject", "object_version", "open_source", "source_url", "stat_object"]

_MANIFESTS = (".csv", ".jsonl", ".ndjson", ".parquet")
_MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceObject:
    """One listed object.

    Attributes:
        uri: Canonical path relative to the source root.
        size: Bytes; 0 if the object could not be looked at.
        version: ETag, else size and modification time; ``missing`` if it could not be looked at.
        extra: The other columns of its manifest row.
    """

    uri: str
    size: int
    version: str
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A source root and the lazy listing of its objects.

    Attributes:
        root: Local folder or URL that every URI is relative to.
        extra_schema: Columns of a manifest that ride along into the rows; empty otherwise.
    """

    root: str
    objects: Iterator[SourceObject]
    extra_schema: pa.Schema = field(default_factory=lambda: pa.schema([]))


def source_url(root: str, uri: str) -> str:
    """Where the object with this URI is: a local path (maybe with surrogate escapes) or a URL."""
    path = unquote_path(uri)
    return path if "://" in path or path.startswith("/") else f"{root.rstrip('/')}/{path}"


def object_version(info: Mapping[str, Any]) -> str:
    """What tells two contents of one name apart, from an fsspec ``info``."""
    for key in ("ETag", "etag", "md5Hash", "checksum"):
        if info.get(key):
            return str(info[key]).strip('"')
    return f"{info.get('size', 0)}-{info.get('mtime') or info.get('LastModified') or ''}"


def open_source(
    url: str, config: SourceConfig, storage: StorageConfig, *, exclude_roots: Sequence[str] = ()
) -> Source:
    """Find out what ``url`` names, and start listing it.

    Args:
        url: Folder, bucket prefix, glob, single file or manifest (.csv, .jsonl, .parquet).
        exclude_roots: Output and work roots: never listed, should they lie inside the source.

    Raises:
        PipelineError: If there is nothing, or a manifest has no URI column.
    """
    if any(character in url for character in "*?["):
        root, pattern = _split_glob(url)
        patterns = config.model_copy(update={"include": (pattern,)})
        return Source(root=root, objects=_list(root, patterns, storage, exclude_roots))
    store = Store(url, storage)
    if store.filesystem.isfile(store.url) if not store.local else Path(store.url).is_file():
        folder, name = posixpath.split(store.url)
        if name.lower().endswith(_MANIFESTS):
            return _from_manifest(Store(folder, storage), name, config)
        return Source(root=folder, objects=iter([_stat(Store(folder, storage), quote_path(name))]))
    if not (Path(store.url).is_dir() if store.local else store.filesystem.exists(store.url)):
        raise PipelineError(f"input {url} does not exist (or cannot be listed)")
    return Source(root=store.url, objects=_list(store.url, config, storage, exclude_roots))


def _split_glob(url: str) -> tuple[str, str]:
    parts = url.split("/")
    first = next(i for i, part in enumerate(parts) if any(c in part for c in "*?["))
    root = "/".join(parts[:first]) or ("/" if url.startswith("/") else ".")
    return Store(root).url, "/".join(parts[first:])


def _list(
    root: str, config: SourceConfig, storage: StorageConfig, exclude_roots: Sequence[str]
) -> Iterator[SourceObject]:
    store = Store(root, storage)
    walk = _walk_local if store.local else _walk_remote
    for item in walk(store, exclude_roots):
        path = unquote_path(item.uri)
        if not any(_matches(path, pattern) for pattern in config.include):
            continue
        if not any(_matches(path, pattern) for pattern in config.exclude):
            yield item


def _matches(path: str, pattern: str) -> bool:
    # A pattern without a slash speaks of the file name, as in .gitignore.
    name = path if "/" in pattern else posixpath.basename(path)
    return fnmatch.fnmatchcase(name, pattern)


def _walk_local(store: Store, exclude_roots: Sequence[str]) -> Iterator[SourceObject]:
    excluded = {os.path.abspath(root) for root in exclude_roots if is_local(root)}  # noqa: PTH100
    ancestors: dict[str, frozenset[str]] = {store.url: frozenset({os.path.realpath(store.url)})}
    # Folder links are followed, but never back into a folder we are inside of.
    for folder, folders, names in os.walk(store.url, followlinks=True):
        inside = ancestors.pop(folder)
        keep = []
        for name in sorted(folders):
            path = os.path.join(folder, name)  # noqa: PTH118  may hold surrogate escapes
            real = os.path.realpath(path)
            if name.startswith(".") or path in excluded or real in inside:
                continue
            ancestors[path] = inside | {real}
            keep.append(name)
        folders[:] = keep
        for name in sorted(names):
            if not name.startswith("."):
                relative = os.path.relpath(os.path.join(folder, name), store.url)  # noqa: PTH118
                yield _stat(store, quote_path(relative))


def _walk_remote(store: Store, exclude_roots: Sequence[str]) -> Iterator[SourceObject]:
    base = store.filesystem._strip_protocol(store.url).rstrip("/") + "/"
    excluded = tuple(
        root.split("://", 1)[1].rstrip("/") + "/" for root in exclude_roots if "://" in root
    )
    for _, _, files in store.filesystem.walk(store.url, detail=True):
        for info in sorted(files.values(), key=lambda info: info["name"]):
            name = info["name"]
            hidden = any(part.startswith(".") for part in name[len(base) :].split("/"))
            if name.endswith("/") or name == base[:-1] or hidden or name.startswith(excluded):
                continue
            yield SourceObject(
                uri=quote_path(name[len(base) :]),
                size=int(info["size"] or 0),
                version=object_version(info),
            )


def _stat(store: Store, uri: str, extra: Mapping[str, Any] | None = None) -> SourceObject:
    try:
        size, version = stat_object(store, source_url(store.url, uri))
    except OSError:
        # Listed, but not there or not readable: decoding will say which, in a quarantine row.
        size, version = 0, _MISSING
    return SourceObject(uri=uri, size=size, version=version, extra=extra or {})


def stat_object(store: Store, url: str) -> tuple[int, str]:
    """Bytes and version of an object as they are now.

    Raises:
        OSError: If it is not there or may not be read.
    """
    if is_local(url):
        status = os.stat(url)  # noqa: PTH116  may hold surrogate escapes
        return status.st_size, f"{status.st_size}-{status.st_mtime_ns}"
    info = store.filesystem.info(url)
    return int(info["size"] or 0), object_version(info)


def _from_manifest(store: Store, name: str, config: SourceConfig) -> Source:
    table = _read_manifest(store, name)
    if config.uri_column not in table.column_names:
        raise PipelineError(
            f"{store.full(name)} has no column {config.uri_column!r} (it has "
            f"{', '.join(table.column_names)}); name another with --set source.uri_column=…"
        )
    uris = [str(uri) for uri in table[config.uri_column].to_pylist()]
    root = store.url
    if uris and all("://" in uri or uri.startswith("/") for uri in uris):
        common = os.path.commonprefix(uris)  # noqa: RUF071  cut at a slash in the next line
        root = common[: common.rfind("/")]
        # Several buckets have no common root: their URIs stay absolute.
        root = "" if root.endswith(":/") else root
        uris = [uri[len(root) + 1 :] if root else uri for uri in uris]
    extra = _json_columns(table.drop_columns([config.uri_column]))
    rows = extra.to_pylist() if extra.num_columns else [{}] * len(uris)
    objects = _stat_all(Store(root or store.url, store.config), uris, rows)
    return Source(root=root, objects=objects, extra_schema=extra.schema)


def _json_columns(table: pa.Table) -> pa.Table:
    """Columns as they ride along: numbers, booleans and strings as they are, the rest as text."""
    for index, column in enumerate(table.schema):
        kind = column.type
        simple = (
            pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
        )
        target = kind if simple else pa.string()
        table = table.set_column(index, pa.field(column.name, target), table[index].cast(target))
    return table


def _stat_all(
    store: Store, uris: Sequence[str], extras: Sequence[Mapping[str, Any]]
) -> Iterator[SourceObject]:
    with ThreadPoolExecutor(16) as pool:
        pairs = zip(uris, extras, strict=True)
        yield from pool.map(lambda pair: _stat(store, quote_path(pair[0]), pair[1]), pairs)


def _read_manifest(store: Store, name: str) -> pa.Table:
    data = pa.BufferReader(store.read(name))
    try:
        if name.lower().endswith(".csv"):
            return pacsv.read_csv(data)
        if name.lower().endswith(".parquet"):
            return pq.read_table(data)
        return pajson.read_json(data)
    except (pa.ArrowInvalid, json.JSONDecodeError) as error:
        raise PipelineError(f"manifest {store.full(name)} cannot be read: {error}") from error
