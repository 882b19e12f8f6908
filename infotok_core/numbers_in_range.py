"""Checks of the numbers that people write into configurations, by name."""

from __future__ import annotations

import math
import operator

__all__ = ["require_at_least", "require_finite", "require_positive", "whole_number"]


def require_at_least(least: int, values: object, *names: str) -> None:
    """Raise a ValueError that names the first attribute below ``least``."""
    for name in names:
        if getattr(values, name) < least:
            raise ValueError(f"{name} must be at least {least}, not {getattr(values, name)}")


def require_finite(values: object, *names: str) -> None:
    """Raise a ValueError that names the first attribute that is NaN or infinite."""
    for name in names:
        if not math.isfinite(getattr(values, name)):
            raise ValueError(f"{name} must be a finite number, not {getattr(values, name)}")


def require_positive(values: object, *names: str) -> None:
    """Raise a ValueError that names the first attribute that is not finite and above 0."""
    for name in names:
        value = getattr(values, name)
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a finite number above 0, not {value}")


def whole_number(name: str, value: object) -> int:
    """A number that counts, also one of NumPy; a ValueError with its ``name`` for anything else."""
    try:
        # What is no number at all is refused by index itself.
        return operator.index(value)  # pyright: ignore[reportArgumentType]
    except TypeError as error:
        raise ValueError(f"{name} must be a whole number, not {value!r}") from error
