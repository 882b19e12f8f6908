"""A row as tensors, and as a run of items with special ids between.

Shapes: N = kept tokens of a window; n = its items, specials included; t, h, w = its latent grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from schemas.ids import clip_id
from schemas.info import TokenizerInfo
from schemas.tokens import MAX_CODES, unpack_mask
from schemas.versions import FormatError

__all__ = ["ITEM_FIELDS", "Specials", "describe", "row_sample", "tokens_of", "window_items"]

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
    """

    bos: int | None = None
    eos: int | None = None
    seam: int | None = None
    frame: int | None = None
    pad: int = 0

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


def tokens_of(
    row: Mapping[str, Any], tokenizer: TokenizerInfo, *, where: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Ids [N] and positions [N, 3] of a row, which is checked.

    Raises:
        FormatError: If it does not fit together; ``where`` and the clip are named.
    """
    try:
        if row["clip_id"] != clip_id(row["video_id"], row["window_index"]):
            raise ValueError("is not that of its video and window")
        mask_thw = unpack_mask(row["mask"], (row["grid_t"], row["grid_h"], row["grid_w"]))
        tokens = np.asarray(row["tokens"]).astype(np.int64)
        flat = np.flatnonzero(mask_thw)
        if not len(tokens) == len(flat) == row["num_tokens"]:
            raise ValueError(
                f"num_tokens {row['num_tokens']}, but {len(tokens)} tokens and "
                f"{len(flat)} bits in the mask"
            )
        if len(tokens) and int(tokens.max()) >= tokenizer.num_codes:
            raise ValueError(f"token {tokens.max()} of {tokenizer.num_codes} codes")
    except (TypeError, ValueError) as error:
        raise FormatError(f"{where}: clip {row.get('clip_id')}: {error}") from error
    positions = np.empty((len(flat), 3), np.int32)
    rest, positions[:, 2] = np.divmod(flat, row["grid_w"])
    positions[:, 0], positions[:, 1] = np.divmod(rest, row["grid_h"])
    return tokens, positions


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
    ids, positions = tokens_of(row, tokenizer, where=where)
    before = specials.bos if first else specials.seam
    if specials.frame is not None:
        frames = np.arange(row["grid_t"], dtype=np.int32)
        borders = np.searchsorted(positions[:, 0], frames)
        marks = np.full((len(frames), 3), -1, np.int32)
        marks[:, 0] = frames
        ids = np.insert(ids, borders, specials.frame)
        positions = np.insert(positions, borders, marks, axis=0)
    positions[:, 0] += first_frame
    ends = [(0, before)] if before is not None else []
    if last and specials.eos is not None:
        ends.append((len(ids), specials.eos))
    if ends:
        borders = [at for at, _ in ends]
        ids = np.insert(ids, borders, [special for _, special in ends])
        positions = np.insert(positions, borders, -1, axis=0)
    return ids, positions


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
    ids, positions = tokens_of(row, tokenizer, where=where)
    return {
        **describe(row, columns),
        "tokens": torch.from_numpy(ids),
        "positions": torch.from_numpy(positions),
        "grid": (row["grid_t"], row["grid_h"], row["grid_w"]),
    }
