"""Doing the next few things while the caller is busy with the last one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["read_ahead"]

T = TypeVar("T")
R = TypeVar("R")


def read_ahead(
    items: Iterable[T],
    read: Callable[[T], R],
    *,
    ahead: int = 64,
    pool: ThreadPoolExecutor | None = None,
) -> Iterator[tuple[T, R]]:
    """Each item with what ``read`` makes of it, in order.

    Args:
        ahead: Items that are taken and read before they are asked for, and their results held.
        pool: Whose threads read; None: a pool of ``ahead`` threads that ends with the loop.
    """
    own = ThreadPoolExecutor(ahead) if pool is None else None
    threads = pool or own
    assert threads is not None
    try:
        pending: deque[tuple[T, Future[R]]] = deque()
        for item in items:
            pending.append((item, threads.submit(read, item)))
            if len(pending) > ahead:
                first, future = pending.popleft()
                yield first, future.result()
        while pending:
            first, future = pending.popleft()
            yield first, future.result()
    finally:
        if own is not None:
            own.shutdown(cancel_futures=True)
