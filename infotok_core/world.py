"""The processes that train together, each with its own device and its share of every batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["World"]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Data parallelism by plain averaging: one all-reduce of all gradients after each backward.

    The networks of this family are small beside their activations: overlapping the exchange with
    the backward pass would gain nothing, and without it a step can be recorded as one CUDA graph.

    Attributes:
        rank: Of this process, from 0.
        size: Number of processes; more than one needs an initialised ``torch.distributed``.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> World:
        """As ``torch.distributed`` says, or a world of one."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(rank=dist.get_rank(), size=dist.get_world_size())

    @torch.no_grad()
    def average(self, tensors: list[Tensor]) -> None:
        """Replace tensors of one dtype by their mean over all processes, in place."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        means = flat.split([tensor.numel() for tensor in tensors])
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.copy_(mean.view(tensor.shape))

    def any(self, flags: Sequence[bool], device: torch.device) -> list[bool]:
        """Whether each flag is up in any process; all of them have to ask."""
        if self.size == 1:
            return list(flags)
        values = torch.tensor([float(flag) for flag in flags], device=device)
        dist.all_reduce(values)
        return [value > 0 for value in values.tolist()]

    @torch.no_grad()
    def gather(self, vector: Tensor) -> Tensor:
        """The vectors of all processes, a row for each; all of them have to ask."""
        rows = vector.new_zeros(self.size, len(vector))
        rows[self.rank] = vector
        if self.size > 1:
            # Nothing is added to any row but zeros.
            dist.all_reduce(rows)
        return rows

    def share(self, batch_size: int) -> int:
        """Clips of this process in a batch of ``batch_size``.

        Raises:
            ValueError: If they cannot be dealt out evenly: means over unequal parts would weigh
                clips differently from a single process.
        """
        if batch_size % self.size:
            raise ValueError(f"batch_size {batch_size} is not a multiple of {self.size} processes")
        return batch_size // self.size
