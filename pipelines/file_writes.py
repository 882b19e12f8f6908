"""Files of a local disk: that appear whole or not at all, and that could not be written."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Generator
from pathlib import Path

from pipelines.errors import StorageError

__all__ = ["TEMPORARY", "create_file", "replace_file", "writing"]

TEMPORARY = ".tmp-"
"""So begins the name of a file that is not finished."""


def create_file(target: Path, data: bytes) -> None:
    """Write a file under a name that is free.

    Raises:
        FileExistsError: If it is taken.
        OSError: Naming the file, if it cannot be written.
    """
    temporary = _temporary(target, data)
    try:
        # Unlike rename, link fails if the name is taken.
        os.link(temporary, target)
    finally:
        temporary.unlink()


def replace_file(target: Path, data: bytes) -> None:
    """Write a file over whatever is there.

    Raises:
        OSError: Naming the file, if it cannot be written.
    """
    _temporary(target, data).replace(target)


@contextlib.contextmanager
def writing(path: str | Path) -> Generator[None]:
    """Say of a local file or folder that could not be written that it was this one.

    Raises:
        StorageError: If it could not.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error}") from error


def _temporary(target: Path, data: bytes) -> Path:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        # Not the name that is to be created, which alone may be taken.
        raise NotADirectoryError(
            errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(target.parent)
        ) from error
    temporary = target.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        # Of no use, and on a full disk in the way. What fails on an open file names none.
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(target)) from error
    return temporary
