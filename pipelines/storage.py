"""A folder in a local or object store, with the one write all is built on: publish-or-nothing.

`Store.publish` makes an object appear whole or not at all, and only if nobody published that name
before: `link` of a synced temporary file on a local filesystem, If-None-Match on an object store.
Publishing the same bytes twice is success, so every step of the pipeline may be repeated by a
retry, by a resumed run, or by a late writer of a dead one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec

from pipelines.config import StorageConfig
from pipelines.errors import ConflictError, StorageError
from pipelines.file_writes import TEMPORARY, create_file, replace_file
from pipelines.store_errors import http_status, named
from pipelines.store_listing import (
    entries_local,
    entries_remote,
    find_local,
    find_remote,
    find_s3,
)
from pipelines.store_options import is_local, is_s3, listed_name, one_request, storage_options

__all__ = ["Store", "is_local", "storage_options"]

_PROBE = "_probe-"
# AWS answers 409 to a conditional write while another one of the name is under way, and asks to
# try again; so long, until that one has settled.
_CONFLICT_WAITS_S = (0.1, 0.4, 1.6, 6.4)
_DELETED_AT_ONCE = 1000


class Store:
    """A root URL and the few operations the pipeline needs below it.

    Paths are relative to the root, with ``/``. An instance pickles as its URL and options and opens
    its own connection in each process (connections do not survive a fork).
    """

    def __init__(self, url: str, config: StorageConfig | None = None) -> None:
        self.config = config or StorageConfig()
        self.local = is_local(url)
        if self.local:
            path = Path(url.removeprefix("file://")).expanduser()
            # Links are kept: the root a user names is the root that is written to.
            self.url = os.path.abspath(path)  # noqa: PTH100
        else:
            self.url = url.rstrip("/")

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self.url, self.config)

    @cached_property
    def filesystem(self) -> Any:  # noqa: ANN401  fsspec has no useful static type here
        """The fsspec filesystem of this process."""
        protocol = "file" if self.local else self.url.split("://", 1)[0]
        options = storage_options(self.url, self.config)
        filesystem = fsspec.filesystem(protocol, skip_instance_cache=True, **options)
        if protocol in ("s3", "s3a"):
            # Else every thread that waits for the first answer makes a client of its own (0.2 s).
            filesystem.connect()
        return filesystem

    @property
    def _is_s3(self) -> bool:
        return is_s3(self.url)

    def child(self, path: str) -> Store:
        """The store rooted at a folder of this one."""
        return Store(self.full(path), self.config)

    def full(self, path: str) -> str:
        """The absolute path or URL of ``path``."""
        return f"{self.url}/{path}" if path else self.url

    def remote(self, operation: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        """Call an operation of the remote filesystem.

        Raises:
            OSError: As the filesystem says it (FileNotFoundError, PermissionError, ...), with the
                name of the object.
            StorageError: For errors of its client: no credentials, no such profile, no connection.
        """
        try:
            return getattr(self.filesystem, operation)(*args, **options)
        except OSError as error:
            asked = args[0] if args and isinstance(args[0], str) and "://" in args[0] else self.url
            raise named(error, asked) from error.__cause__
        except Exception as error:  # every client has a base class of its own
            raise StorageError(f"{self.url} cannot be reached: {error}") from error

    def read(self, path: str) -> bytes:
        """The whole object.

        Raises:
            FileNotFoundError: If there is none.
        """
        if self.local:
            return Path(self.full(path)).read_bytes()
        return self.remote("cat_file", self.full(path), **one_request(self.url))

    def open(self, path: str) -> Any:  # noqa: ANN401  a binary file object
        """The object as a seekable file, of which only what is asked for is read.

        Raises:
            FileNotFoundError: If there is none.
        """
        if self.local:
            return Path(self.full(path)).open("rb")
        return self.remote("open", self.full(path), "rb", cache_type="none")

    def exists(self, path: str) -> bool:
        """Whether the object is there."""
        if self.local:
            return Path(self.full(path)).exists()
        return self.remote("exists", self.full(path))

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Objects below the folder ``prefix``: (path, bytes), in path order within a folder.

        Streamed on a disk and on S3: many cost no memory. 0 bytes where the listing does not say.
        """
        root = self.full(prefix).rstrip("/")
        if self.local:
            for path, size in find_local(Path(root), hidden=TEMPORARY):
                yield path.relative_to(self.url).as_posix(), size
            return
        base, below = (f"{listed_name(url)}/" for url in (self.url, root))
        for info in self.find(root):
            if info["name"].startswith(below) and not info["name"].endswith("/"):
                yield info["name"][len(base) :], int(info["size"] or 0)

    def entries(self, prefix: str) -> tuple[list[str], list[str]]:
        """Names of the folders and of the files right below the folder ``prefix``, in order."""
        root = self.full(prefix)
        if self.local:
            return entries_local(Path(root), hidden=TEMPORARY)
        return entries_remote(self.remote, root)

    def find(self, url: str) -> Iterator[dict[str, Any]]:
        """What fsspec knows of each remote object below the folder ``url``, in path order."""
        return (find_s3 if self._is_s3 else find_remote)(self.remote, url)

    def create(self, path: str, data: bytes) -> bool:
        """Write an object if there is none; whole or not at all. False if the name was taken."""
        try:
            if self.local:
                create_file(Path(self.full(path)), data)
            else:
                self._create_remote(path, data)
        except FileExistsError:
            return False
        return True

    def take(self, path: str, token: bytes) -> bool:
        """Take a name that nobody has, by bytes that nobody else writes. False if it was taken.

        A store may do what it was asked and its answer be lost. The client then asks again, and
        `create` finds the name taken: by ourselves, as the bytes tell.
        """
        if self.create(path, token):
            return True
        with contextlib.suppress(FileNotFoundError):
            return self.read(path) == token
        return False

    def publish(self, path: str, data: bytes) -> None:
        """Write an object once: repeating it with the same bytes is success.

        Raises:
            ConflictError: If the name is taken by other bytes (which stay as they are).
        """
        if self.create(path, data):
            return
        there = hashlib.sha256(self.read(path)).hexdigest()
        ours = hashlib.sha256(data).hexdigest()
        if there != ours:
            raise ConflictError(
                f"{self.full(path)} already exists with other bytes "
                f"(sha256 {there[:16]}…, ours {ours[:16]}…); the first one was kept"
            )

    def replace(self, path: str, data: bytes) -> None:
        """Write an object, whole, over whatever is there."""
        if self.local:
            replace_file(Path(self.full(path)), data)
        else:
            self.remote("pipe_file", self.full(path), data)

    def delete(self, path: str) -> None:
        """Remove an object; no error if it is gone."""
        with contextlib.suppress(FileNotFoundError):
            if self.local:
                Path(self.full(path)).unlink()
            else:
                self.remote("rm_file", self.full(path))

    def delete_all(self, paths: Iterable[str]) -> None:
        """Remove many objects, with as few requests as the store allows."""
        iterator = iter(paths)
        while batch := list(islice(iterator, _DELETED_AT_ONCE)):
            if self._is_s3:
                self.remote("rm", [self.full(path) for path in batch])
                continue
            for path in batch:
                self.delete(path)

    def delete_folder(self, prefix: str) -> None:
        """Remove every object below ``prefix``; no error if there is none.

        What somebody writes there meanwhile may stay.
        """
        if not self.local:
            self.delete_all(path for path, _ in self.list(prefix))
            return
        for folder, folders, names in os.walk(self.full(prefix), topdown=False):
            for name in names:
                Path(folder, name).unlink(missing_ok=True)
            for name in folders:
                with contextlib.suppress(OSError):
                    Path(folder, name).rmdir()
        with contextlib.suppress(OSError):
            Path(self.full(prefix)).rmdir()

    def delete_leftovers(self) -> None:
        """Remove what writers that were killed left half done; nothing of it has a final name.

        A writer that is still alive loses the object it is about to publish, with an error.
        """
        for path in self.filesystem.ls(self.full(""), detail=False):
            name = path.rsplit("/", 1)[-1]
            if name.startswith(_PROBE):
                self.delete(name)
        if not self.local:
            return
        for folder, _, names in os.walk(self.url):
            for name in names:
                if name.startswith(TEMPORARY):
                    Path(folder, name).unlink(missing_ok=True)

    def check_conditional_writes(self) -> None:
        """Prove that a name can be taken only once here, and all else that a run does works, too.

        Raises:
            StorageError: If it cannot be written to, listed or deleted from, or ignores conditional
                writes.
        """
        probe = f"{_PROBE}{secrets.token_hex(8)}"
        step = "write to"
        try:
            taken = self.take(probe, b"first")
            again = self.create(probe, b"second")
            # Who may not list is refused what is missing.
            step = "list"
            self.exists(f"{probe}-missing")
            step = "delete from"
            self.delete(probe)
        except OSError as error:
            raise StorageError(f"cannot {step} {self.url}: {error}") from error
        finally:
            with contextlib.suppress(OSError, StorageError):
                self.delete(probe)
        if not taken or again:
            raise StorageError(
                f"{self.url} ignores conditional writes (If-None-Match): two runs could mix their "
                "output. Make sure that only one run writes there, and pass --single-writer."
            )

    def _create_remote(self, path: str, data: bytes) -> None:
        for wait_s in (*_CONFLICT_WAITS_S, None):
            try:
                self.remote("pipe_file", self.full(path), data, mode="create")
            except OSError as error:
                status = http_status(error)
                if status == 412:
                    # s3fs knows a taken name by the condition in the answer, which AWS alone names.
                    raise FileExistsError(self.full(path)) from error
                if status != 409 or wait_s is None:
                    raise
                time.sleep(wait_s)
            else:
                return
