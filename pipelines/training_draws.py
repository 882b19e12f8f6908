"""Random numbers by name instead of in sequence: the draws of clip 71,203 need none before them.

Philox is a counter-based generator: its output at a counter is a function of key and counter. The
key is the seed and what is drawn for, the counter is the number of the thing drawn for. NumPy
promises the raw stream of a bit generator for all versions (the methods of ``Generator`` it does
not), so a run may be resumed under another NumPy.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt

__all__ = ["Purpose", "order", "uniform"]

_BLOCK = 4
"""64-bit numbers per count of Philox4x64."""
_WORD = (1 << 64) - 1


class Purpose(IntEnum):
    """What is drawn for. The values are part of what a seed means: only ever add."""

    SAMPLE = 0
    """One clip of a corpus held in memory."""
    STEP = 1
    """What all clips of a step share."""
    EPOCH = 2
    """The order of the videos in one pass over the corpus."""
    VISIT = 3
    """How one video is decoded once."""
    CLIP = 4
    """One clip of a visit."""
    DEAL = 5
    """The order in which the clips of a block are dealt."""
    UNITS = 6
    """The order in which an epoch reads the row groups of a token corpus."""
    ROWS = 7
    """The order of windows or documents in one row group."""
    BATCHES = 8
    """The order of the batches made of one row group."""


def uniform(
    seed: int, purpose: Purpose, first: int, count: int, *, width: int
) -> npt.NDArray[np.float64]:
    """Uniform numbers in [0, 1) for the things ``first`` .. ``first + count - 1``.

    Args:
        seed: Any integer; its low 64 bits count.
        purpose: Different purposes are independent.
        first: >= 0.
        count: How many things in a row.
        width: Numbers for each of them. The same thing gets other numbers with another width.

    Returns:
        ``[count, width]``, multiples of 2**-53. ``int(u * n)`` is in [0, n) for n <= 2**53.
    """
    blocks = -(-width // _BLOCK)
    raw = _philox(seed, purpose, first * blocks).random_raw(count * blocks * _BLOCK)
    numbers = raw.reshape(count, blocks * _BLOCK)[:, :width] >> np.uint64(11)
    return np.ldexp(numbers.astype(np.float64), -53)


def order(seed: int, purpose: Purpose, index: int, count: int) -> npt.NDArray[np.int64]:
    """The ``index``-th random permutation of ``range(count)``."""
    raw = _philox(seed, purpose, index << 64).random_raw(count)
    return np.argsort(raw, kind="stable")


def _philox(seed: int, purpose: Purpose, counter: int) -> np.random.Philox:
    return np.random.Philox(key=(seed & _WORD) | int(purpose) << 64, counter=counter)
