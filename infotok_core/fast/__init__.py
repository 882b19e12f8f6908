"""The network as a GPU likes it: the same weights and function, other kernels.

`accelerate` makes it from a plain one. Its Triton kernels (``*kernels.py``) are imported only where
they run. None sums by atomics, and no size of a block depends on a measurement: a result repeats
bit for bit, in any process, and a sample's does not depend on the batch around it.
"""

from __future__ import annotations

__all__: list[str] = []
