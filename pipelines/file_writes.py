"""Files of a local disk that appear whole or not at all: written beside, synced, then named."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

__all__ = ["TEMPORARY", "create_file", "replace_file"]

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
