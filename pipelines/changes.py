"""What differs between two JSON documents, line by line, for a person who has to mend it."""

from __future__ import annotations

from typing import Any

__all__ = ["changes"]


def changes(was: Any, now: Any, prefix: str = "") -> list[str]:  # noqa: ANN401  JSON values
    """``table.key: was A, is B`` for each value that is another; empty if none is.

    Args:
        was: JSON values, nested dicts among them.
        now: Of the same shape; a key that only one has counts as None in the other.
        prefix: Put before each name.
    """
    if isinstance(was, dict) and isinstance(now, dict):
        return [
            line
            for key in sorted(was.keys() | now.keys())
            for line in changes(was.get(key), now.get(key), f"{prefix}.{key}".lstrip("."))
        ]
    return [] if was == now else [f"{prefix}: was {was}, is {now}"]
