"""Where training gets its clips from: the interface between the loop and whatever decodes videos.

Shapes: B clips, T frames, H rows, W columns, C = 3.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

__all__ = ["ClipSource"]


class ClipSource(Protocol):
    """Clips for one training process, by the number of the optimisation step.

    What a step gets depends on the step alone (and on how the source was configured), never on
    what was asked before: a run that was killed and resumed sees the same clips.
    """

    def batch(self, step: int) -> Tensor:
        """The clips of a step, for this rank.

        Args:
            step: From 0, counted over the whole training stage. Steps are asked for in ascending
                order, from the one that the source was opened with.

        Returns:
            uint8 ``[batch_size, frames, crop, crop, 3]`` on the device that the source was opened
            for; the caller may keep it.
        """
        ...

    def close(self) -> None:
        """End the processes and threads behind it; may be repeated. No batch comes afterwards."""
        ...
