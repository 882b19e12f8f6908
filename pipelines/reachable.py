"""Does the store answer at all? Asked once, before a run builds on it.

The clients of a running job try again for minutes, so that trouble of the moment costs nothing. A
person who mistyped an endpoint shall not wait for that.
"""

from __future__ import annotations

import fsspec
from botocore.exceptions import BotoCoreError, HTTPClientError
from botocore.exceptions import ConnectionError as BotoConnectionError
from fsspec.asyn import sync

from pipelines.errors import StorageError
from pipelines.storage import Store, storage_options
from pipelines.store_options import is_s3

__all__ = ["check_reachable"]

_ATTEMPT_S = 4
"""For a connection, and for an answer on it."""
_ATTEMPTS = 2
_ALL_S = 12.0
"""For everything: looking up a name has no limit of its own."""


def check_reachable(store: Store) -> None:
    """Ask an S3 store for its bucket; any answer will do. Other stores are not asked.

    Raises:
        StorageError: If there is none within 12 seconds, or no request could be made (no
            credentials, no such profile); the message names the endpoint and the cause.
    """
    if not is_s3(store.url):
        return
    options = storage_options(store.url, store.config)
    options["config_kwargs"] = {
        "connect_timeout": _ATTEMPT_S,
        "read_timeout": _ATTEMPT_S,
        "retries": {"max_attempts": 0, "mode": "standard"},
    }
    cause: Exception
    try:
        filesystem = fsspec.filesystem("s3", skip_instance_cache=True, **options)
        filesystem.retries = _ATTEMPTS
        bucket = store.url.split("://", 1)[1].split("/", 1)[0]
        sync(filesystem.loop, filesystem._call_s3, "head_bucket", Bucket=bucket, timeout=_ALL_S)
        return
    except TimeoutError:
        cause = TimeoutError(f"no answer within {_ALL_S:g} s")
    except (BotoConnectionError, HTTPClientError) as error:
        cause = error
    except BotoCoreError as error:
        # No request was made: no credentials, no such profile.
        raise StorageError(f"{store.url} cannot be reached: {error}") from error
    except OSError:
        # Refused, missing, moved: whoever says so is there. The request itself will say it better.
        return
    endpoint = store.config.endpoint_url or "the S3 endpoint of AWS or of the profile"
    raise StorageError(f"{store.url} cannot be reached at {endpoint}: {cause}") from cause
