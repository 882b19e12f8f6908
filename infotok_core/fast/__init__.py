"""The network as a GPU likes it: the same weights and function, other kernels.

`accelerate` makes it from a plain one; nothing here is imported on a machine without a GPU.
"""

from __future__ import annotations

__all__: list[str] = []
