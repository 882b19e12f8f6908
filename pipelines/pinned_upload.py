"""Batches of frames to a GPU, from page-locked memory, while it computes something else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["PinnedUpload"]


class PinnedUpload:
    """Stacks windows in one of two page-locked buffers in turn and copies them without waiting.

    The copy has a stream of its own: a GPU copies one batch while it computes another.

    Args:
        device: A GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._buffers: list[tuple[Tensor, torch.cuda.Event]] = []

    def __call__(self, frames: Sequence[NDArray[np.uint8]]) -> Tensor:
        """uint8 ``[B, *window]`` on the device, usable on the current stream.

        Args:
            frames: Windows of one shape.
        """
        shape = (len(frames), *frames[0].shape)
        if self._buffers and self._buffers[0][0].shape != shape:
            self._buffers.clear()
        if len(self._buffers) < 2:
            buffer = torch.empty(shape, dtype=torch.uint8).pin_memory()
            # Blocking: a thread that waits must not keep a core from the decoders.
            copied = torch.cuda.Event(blocking=True)
        else:
            buffer, copied = self._buffers.pop(0)
            copied.synchronize()
        np.stack(frames, out=buffer.numpy())
        with torch.cuda.stream(self._stream):
            there = buffer.to(self._device, non_blocking=True)
            copied.record()
        self._buffers.append((buffer, copied))
        current = torch.cuda.current_stream(self._device)
        current.wait_event(copied)
        # Its memory must not be given away before the current stream is through with it.
        there.record_stream(current)
        return there
