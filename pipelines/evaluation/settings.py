"""What an evaluation is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import torch
from torch import Tensor

from infotok_core.metrics import EXACT_DB
from infotok_core.router import MIN_RATE, Selection
from pipelines.analyser import VideoTokenizer

__all__ = [
    "Clocks",
    "EvaluatedTokenizer",
    "EvaluationConfig",
    "Say",
    "Sweep",
    "Timed",
    "timed",
]

Say = Callable[[str], None]
"""Takes a line of progress."""

Sweep = Literal["basic", "full"]
"""``basic``: the same rate for all, `global_elbo` and `token_threshold`, by information. ``full``:
all routers and selections, a grid of rates, the optimum and the search."""

_Result = TypeVar("_Result")


class EvaluatedTokenizer(VideoTokenizer, Protocol):
    """All that is asked of a tokenizer; `infotok_core.tokenizer.Tokenizer` is one."""

    def reconstruct(self, codes_Bthw: Tensor, keep_Bthw: Tensor, /) -> Tensor:
        """The video that kept tokens give, uint8 ``[B, T, H, W, 3]``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """Rates and depth.

    Raises:
        ValueError: If a number is out of range; the message says which.
    """

    rates: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25)
    """Asked mean shares of kept tokens."""
    sweep: Sweep = "basic"
    max_windows: int | None = None
    """An even sample of so many windows; None for all."""
    batch_size: int = 8
    """Windows or decodes per call on a GPU; 1 on a CPU."""
    min_rate: float = MIN_RATE
    """Least rate of a clip by the global routers."""
    exponent: float = 1.0
    """Of the ELBO in the exact budget; a quarter, a half, three quarters, or 1 as in the paper."""
    grid_points: int = 16
    """Rates 1/n .. n/n of the full sweep's curves: what search and optimum choose from."""
    grid_selection: Selection = "information"
    """Which tokens go first in the curves, the search and the optimum."""
    search_psnr_db: tuple[float, ...] = ()
    """Further thresholds of the search, besides those found for each rate."""
    measure_all: bool = False
    """SSIM, LPIPS and FVD of the decodes of the grid, too: search and optimum then have them."""

    def __post_init__(self) -> None:
        if not 0 < self.min_rate <= 1:
            raise ValueError(f"min_rate must be in (0, 1], not {self.min_rate}")
        if self.exponent not in (0.25, 0.5, 0.75, 1):
            raise ValueError(f"exponent must be 0.25, 0.5, 0.75 or 1, not {self.exponent}")
        if not self.rates or len(set(self.rates)) < len(self.rates):
            raise ValueError(f"rates must be some different numbers, not {self.rates}")
        wrong = [rate for rate in self.rates if not self.min_rate <= rate <= 1]
        if wrong:
            raise ValueError(f"rates must be in [{self.min_rate}, 1], not {wrong}")
        far = [value for value in self.search_psnr_db if not 0 <= value <= EXACT_DB]
        if far:
            raise ValueError(f"thresholds of the search must be in [0, {EXACT_DB:g}] dB, not {far}")
        for name in ("max_windows", "batch_size", "grid_points"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """Where the time comes from."""

    wall: Callable[[], float]
    """Monotonic seconds."""
    cpu: Callable[[], float]
    """CPU seconds of all threads of this process."""


@dataclass(frozen=True, slots=True)
class Timed:
    """What a call took."""

    wall_ms: float
    cpu_ms: float | None
    """None on a GPU, where the CPU only waits."""

    def share(self, of: int) -> Timed:
        """One of ``of`` equal parts."""
        return Timed(self.wall_ms / of, None if self.cpu_ms is None else self.cpu_ms / of)


def timed(
    work: Callable[[], _Result], *, device: torch.device, clocks: Clocks
) -> tuple[_Result, Timed]:
    """The result of a call, and its time until the device has really finished."""
    _wait(device)
    wall, cpu = clocks.wall(), clocks.cpu()
    result = work()
    _wait(device)
    wall_ms, cpu_ms = (clocks.wall() - wall) * 1e3, (clocks.cpu() - cpu) * 1e3
    return result, Timed(wall_ms, cpu_ms if device.type == "cpu" else None)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
