"""What the errors of a remote store say, and of which object, which clients leave out."""

from __future__ import annotations

__all__ = ["http_status", "named"]


def http_status(error: OSError) -> int | None:
    """Status of the answer that s3fs turned into ``error``, if there was one."""
    response = getattr(error.__cause__, "response", None) or {}
    return response.get("ResponseMetadata", {}).get("HTTPStatusCode")


def named(error: OSError, url: str) -> OSError:
    """The same error, whose text names the object or folder that was asked for."""
    path = url.split("://", 1)[-1]
    if error.filename is not None or path in str(error):
        return error
    if error.errno is None:
        # The filesystem gave nothing but a text, or nothing at all.
        error.args = (f"{url}: {error}" if str(error) else url,)
    else:
        error.filename = url
    return error
