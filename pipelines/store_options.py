"""How a URL is reached: locally, or through which options of fsspec."""

from __future__ import annotations

from typing import Any

import fsspec

from pipelines.config import StorageConfig

__all__ = ["is_local", "is_s3", "is_web", "listed_name", "one_request", "storage_options"]


def is_local(url: str) -> bool:
    """Whether ``url`` is a path of this machine (no scheme, or ``file://``)."""
    return "://" not in url or url.startswith("file://")


def is_s3(url: str) -> bool:
    """Whether ``url`` is in an S3 store."""
    return url.startswith(("s3://", "s3a://"))


def is_web(url: str) -> bool:
    """Whether ``url`` is an address of a web server."""
    return url.startswith(("http://", "https://"))


def listed_name(url: str) -> str:
    """What a listing calls the remote ``url``: ``bucket/key``, ``/path``, or the whole URL."""
    kind = fsspec.get_filesystem_class(url.split("://", 1)[0])
    return kind._strip_protocol(url).rstrip("/")


def one_request(url: str) -> dict[str, Any]:
    """Options with which ``cat_file`` of fsspec asks for an object once.

    To read parts at the same time s3fs would ask for the size of even the smallest object first.
    """
    return {"max_concurrency": 1} if is_s3(url) else {}


def storage_options(url: str, config: StorageConfig) -> dict[str, Any]:
    """Options for ``fsspec.filesystem`` that reach ``url``: names and addresses, no secrets."""
    if not is_s3(url):
        return {}
    options: dict[str, Any] = {
        "use_listings_cache": False,
        # Adaptive backs off with jitter on SlowDown and 5xx.
        "config_kwargs": {"retries": {"max_attempts": 8, "mode": "adaptive"}},
    }
    client: dict[str, Any] = {}
    if config.endpoint_url:
        client["endpoint_url"] = config.endpoint_url
    if config.region:
        client["region_name"] = config.region
    if client:
        options["client_kwargs"] = client
    if config.profile:
        options["profile"] = config.profile
    if config.anonymous:
        options["anon"] = True
    return options
