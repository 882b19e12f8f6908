"""The version of everything persisted, and what reads what.

| format_version | written by | read by |
|---|---|---|
| 1 | 0.1 | 0.1 |

One number covers all documents and tables: a corpus is written by one release, and a reader that
understands its ``meta/info.json`` understands the rest. Columns and enum members may be added
within a version; anything that changes the meaning of what is already there takes a new one.
"""

from __future__ import annotations

__all__ = ["FORMAT_VERSION", "FormatError", "check_version"]

FORMAT_VERSION = 1


class FormatError(ValueError):
    """Stored bytes are damaged, or of a version this release does not read; the message says which.

    Carries its message alone, so it survives pickling between processes.
    """


def check_version(found: object, *, what: str) -> None:
    """Refuse what another release wrote.

    Args:
        found: The stored ``format_version`` as it was read; numeric text is accepted, because
            Parquet metadata holds text only.
        what: Name of the document for the message.

    Raises:
        FormatError: If it is missing, no number, or a version that is not read here.
    """
    if isinstance(found, bytes):
        found = found.decode("ascii", "replace")
    if found is None:
        raise FormatError(f"{what} has no format_version: it is not one of ours, or it is damaged")
    # The type is part of it: True == 1, and a float version was never written.
    if (
        not isinstance(found, int | str)
        or isinstance(found, bool)
        or str(found) != str(FORMAT_VERSION)
    ):
        raise FormatError(
            f"{what} has format_version {found!r}; this release reads version {FORMAT_VERSION} only"
        )
