"""What a network computes in where nobody says so; known without torch."""

from __future__ import annotations

__all__ = ["default_dtype"]


def default_dtype(device_type: str) -> str:
    """Name of a torch dtype: half precision on a GPU."""
    return "float32" if device_type == "cpu" else "float16"
