"""Sizes that Triton takes."""

from __future__ import annotations

__all__ = ["power_of_two"]


def power_of_two(number: int, *, least: int = 1) -> int:
    """The power of two at or above a positive number, ``least`` at least."""
    return max(least, 1 << (number - 1).bit_length())
