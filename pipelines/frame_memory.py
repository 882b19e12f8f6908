"""Anonymous shared memory for windows on their way between two processes.

An unnamed file that both hold open: when the last of them dies, by whatever means, the kernel frees
it. Nothing is left in ``/dev/shm``.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile

import numpy as np
import numpy.typing as npt

__all__ = ["FrameMemory", "anonymous_file"]


def anonymous_file() -> int:
    """A descriptor of an empty file without a name, in memory where the system can."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("infotok-frames")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class FrameMemory:
    """Equal slots in a shared file, seen as arrays. One side `resize`s, then both `attach`.

    Args:
        descriptor: From `anonymous_file`, inherited by the other process.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.slots: list[npt.NDArray[np.uint8]] = []
        """uint8 [T, H, W, 3] each; valid until `detach`, or `attach` with another layout."""
        self._layout: tuple[tuple[int, ...], int] | None = None

    def resize(self, shape: tuple[int, ...], num_slots: int) -> None:
        """Make room; does nothing if it is there already (its pages are kept)."""
        num_bytes = math.prod(shape) * num_slots
        if os.fstat(self.descriptor).st_size != num_bytes:
            os.ftruncate(self.descriptor, num_bytes)

    def attach(self, shape: tuple[int, ...], num_slots: int) -> None:
        """Map the slots; does nothing if they are mapped already (touching pages anew is not free).

        Raises:
            OSError: ENOMEM, if they do not fit under the limit of the process.
        """
        if self._layout == (shape, num_slots):
            return
        self.detach()
        # Unmapped when the last array over it goes.
        memory = mmap.mmap(self.descriptor, math.prod(shape) * num_slots)
        self.slots = list(np.frombuffer(memory, np.uint8).reshape(num_slots, *shape))
        self._layout = (shape, num_slots)

    def detach(self) -> None:
        """Forget the slots."""
        self.slots, self._layout = [], None
