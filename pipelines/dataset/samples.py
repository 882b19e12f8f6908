"""A row as tensors, and as a run of items with special ids between.

Shapes: N = kept tokens of a window; n = its items, specials included; t, h, w = its latent grid.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from infotok_core.numbers_in_range import whole_number
from schemas.ids import clip_id
from schemas.info import TokenizerInfo
from schemas.tokens import MAX_CODES, unpack_mask
from schemas.versions import FormatError

__all__ = ["ITEM_FIELDS", "Specials", "check_mode", "describe", "row_sample", "window_items"]

ITEM_FIELDS = (
    "clip_id", "video_id", "source", "window_index", "start_time_s", "end_time_s", "num_frames",
    "fps", "width", "height",
)  # fmt: skip
"""What every sample and every packed window says of its row."""

Items = tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]
"""Ids [n] and positions [n, 3]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Specials:
    """Ids from the free range that are put between the tokens; None leaves one out.

    Attributes:
        bos: Before the first window of a document.
        eos: Behind its last.
        seam: Between two neighbouring windows of one video.
        frame: Before each latent frame, also where no token of it was kept.
        pad: Where there is nothing. It may be any id: what is padding is told besides.

    A special has the position (-1, -1, -1), one of a frame (t, -1, -1).

    Raises:
        ValueError: If one is no whole number.
    """

    bos: int | None = None
    eos: int | None = None
    seam: int | None = None
    frame: int | None = None
    pad: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            if (value := getattr(self, field.name)) is not None:
                object.__setattr__(self, field.name, whole_number(field.name, value))

    def check(self, tokenizer: TokenizerInfo) -> None:
        """Compare with the vocabulary.

        Raises:
            ValueError: If one is an id of the tokenizer, beyond 16 bits, or used twice.
        """
        used = [i for i in (self.bos, self.eos, self.seam, self.frame) if i is not None]
        free = range(tokenizer.num_codes, MAX_CODES)
        if any(special not in free for special in used) or len(set(used)) < len(used):
            raise ValueError(
                f"special ids {used} must differ and be of the free range "
                f"{free.start} to {free.stop - 1}"
            )
        if not 0 <= self.pad < MAX_CODES:
            raise ValueError(f"pad {self.pad} must be in 0 to {MAX_CODES - 1}")

    def added(self, *, first: bool, last: bool) -> int:
        """Items around a window, frames not counted."""
        before = self.bos if first else self.seam
        return (before is not None) + (last and self.eos is not None)


def check_mode(mode: object, *names: str) -> None:
    """Compare what a packing or buckets were given, and make Python's numbers of NumPy's.

    Args:
        mode: A frozen dataclass with ``specials``.
        names: Its whole numbers, each at least one.

    Raises:
        ValueError: If something is of another kind, or a number is less than one.
    """
    for name in names:
        number = whole_number(name, getattr(mode, name))
        if number < 1:
            raise ValueError(f"{name} {number} must be at least 1")
        object.__setattr__(mode, name, number)
    specials = getattr(mode, "specials", None)
    if not isinstance(specials, Specials):
        raise ValueError(f"specials must be a Specials, not {specials!r}")


def _kept_tokens(
    row: Mapping[str, Any], tokenizer: TokenizerInfo, *, where: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ids [N] of a row, and the number of the place of each [N]; the row is checked.

    Raises:
        FormatError: If it does not fit together; ``where`` and the clip are named.
    """
    try:
        if row["clip_id"] != clip_id(row["video_id"], row["window_index"]):
            raise ValueError("is not that of its video and window")
        flat = np.flatnonzero(unpack_mask(row["mask"], _grid(row)))
        tokens = np.asarray(row["tokens"]).astype(np.int64)
        if not len(tokens) == len(flat) == row["num_tokens"]:
            raise ValueError(
                f"num_tokens {row['num_tokens']}, but {len(tokens)} tokens and "
                f"{len(flat)} bits in the mask"
            )
        if len(tokens) and int(tokens.max()) >= tokenizer.num_codes:
            raise ValueError(f"token {tokens.max()} of {tokenizer.num_codes} codes")
    except (TypeError, ValueError) as error:
        raise FormatError(f"{where}: clip {row.get('clip_id')}: {error}") from error
    return tokens, flat


def _grid(row: Mapping[str, Any]) -> tuple[int, int, int]:
    return row["grid_t"], row["grid_h"], row["grid_w"]


@functools.lru_cache(maxsize=8)
def _places(grid: tuple[int, int, int]) -> npt.NDArray[np.int32]:
    """Positions [t*h*w + t, 3] of all places, then of the marks of the frames."""
    marks = np.full((grid[0], 3), -1, np.int32)
    marks[:, 0] = np.arange(grid[0])
    return np.concatenate([np.indices(grid, np.int32).reshape(3, -1).T, marks])


def window_items(
    row: Mapping[str, Any],
    tokenizer: TokenizerInfo,
    specials: Specials,
    *,
    where: str,
    first: bool = True,
    last: bool = True,
    first_frame: int = 0,
) -> Items:
    """The items of a window.

    Args:
        row: Of the corpus.
        tokenizer: Of the corpus.
        specials: What is put between.
        where: File and row, for the messages.
        first: Whether a document begins with it.
        last: Whether it ends with it.
        first_frame: Latent frames of the document before it, added to t.

    Raises:
        FormatError: If the row does not fit together.
    """
    ids, flat = _kept_tokens(row, tokenizer, where=where)
    if specials.frame is not None:
        ids, flat = _with_frames(ids, flat, _grid(row), specials.frame)
    # Looked up, not divided for each token again; take is four times as fast as brackets.
    positions = np.take(_places(_grid(row)), flat, axis=0)
    positions[:, 0] += first_frame
    before = specials.bos if first else specials.seam
    after = specials.eos if last else None
    if before is not None or after is not None:
        head, tail = ([] if special is None else [special] for special in (before, after))
        ids = np.concatenate([np.array(head, np.int64), ids, np.array(tail, np.int64)])
        nowhere = np.full((1, 3), -1, np.int32)
        positions = np.concatenate([nowhere[: len(head)], positions, nowhere[: len(tail)]])
    return ids, positions


def _with_frames(
    ids: npt.NDArray[np.int64],
    flat: npt.NDArray[np.int64],
    grid: tuple[int, int, int],
    special: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """A special before each frame; a token moves back by one for each frame up to its own."""
    frames, per_frame = grid[0], grid[1] * grid[2]
    numbers = np.arange(frames)
    begins = np.searchsorted(flat, numbers * per_frame)
    counts = np.diff(np.append(begins, len(flat)))
    moved = np.arange(len(ids)) + np.repeat(numbers + 1, counts)
    all_ids = np.full(len(ids) + frames, special, np.int64)
    all_flat = np.empty(len(all_ids), np.int64)
    all_ids[moved], all_flat[moved] = ids, flat
    all_flat[begins + numbers] = frames * per_frame + numbers
    return all_ids, all_flat


def describe(row: Mapping[str, Any], columns: Iterable[str]) -> dict[str, Any]:
    """What a row says of its window; ``columns`` are those that ride along."""
    return {name: row[name] for name in (*ITEM_FIELDS, *columns)}


def row_sample(
    row: Mapping[str, Any], tokenizer: TokenizerInfo, columns: Iterable[str], *, where: str
) -> dict[str, Any]:
    """A sample: tokens int64 [N], positions int32 [N, 3] in order t, h, w, grid, and `describe`.

    Raises:
        FormatError: If the row does not fit together.
    """
    ids, positions = window_items(row, tokenizer, Specials(), where=where)
    return {
        **describe(row, columns),
        "tokens": torch.from_numpy(ids),
        "positions": torch.from_numpy(positions),
        "grid": _grid(row),
    }
