"""Tokens back to frames.

Shapes: T frames, H rows, W columns, C = 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from infotok_core.errors import CheckpointError
from infotok_core.numbers_in_range import whole_number
from infotok_core.opening import open_tokenizer
from infotok_core.tokenizer import VideoCodec
from pipelines.dataset.samples import ITEM_FIELDS
from pipelines.errors import PlanMismatchError
from schemas.info import CorpusInfo
from schemas.tokens import pack_mask

__all__ = ["checkpoint_of", "detokenise"]

_NEEDED = ("tokens", "positions", "grid", "num_frames", "width", "height")


def checkpoint_of(
    info: CorpusInfo,
    checkpoint: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
) -> VideoCodec:
    """The tokenizer that wrote a corpus.

    Args:
        info: Of the corpus.
        checkpoint: Where it is; None: under the name by which the run knew it.
        device: Where it shall run.

    Raises:
        PlanMismatchError: If it is another tokenizer, or cannot be found.
    """
    name = info.tokenizer.name if checkpoint is None else checkpoint
    try:
        tokenizer = open_tokenizer(name, device=device)
    except (CheckpointError, OSError) as error:
        raise PlanMismatchError(f"{error}: name the checkpoint of the corpus") from error
    if tokenizer.fingerprint != info.tokenizer.fingerprint:
        raise PlanMismatchError(
            f"the corpus was written by tokenizer {info.tokenizer.fingerprint[:16]}…, "
            f"{name} is {tokenizer.fingerprint[:16]}…: name the checkpoint of the corpus"
        )
    return tokenizer


def detokenise(sample: Mapping[str, Any], tokenizer: VideoCodec) -> npt.NDArray[np.uint8]:
    """The frames of a sample, uint8 [T, H, W, C].

    Args:
        sample: As a `TokenDataset` gives it, or made by a model: ``tokens`` in any order with their
            ``positions`` (t counted from the window's first latent frame), ``grid``, and
            ``num_frames``, ``width``, ``height``. Special ids are told by a negative h in their
            position, and left out.
        tokenizer: Which wrote the corpus; see `checkpoint_of`.

    Raises:
        ValueError: If a position lies outside of the grid or is taken twice, an id is no code,
            something is no whole number, or the frames do not have the size that is said.
    """
    # Not at the top: pictures and measures, which `reconstruct` also needs, take seconds to import.
    from pipelines.reconstruct import reconstruct_row

    if missing := [name for name in _NEEDED if sample.get(name) is None]:
        raise ValueError(
            f"the sample lacks {', '.join(missing)}: windows can be decoded, one by one, and not "
            "the contexts or batches they are packed into"
        )
    ids, where = _whole(sample, "tokens"), _whole(sample, "positions")
    if ids.ndim != 1 or where.shape != (len(ids), 3):
        raise ValueError(
            f"tokens {list(ids.shape)} and positions {list(where.shape)} must be [n] and [n, 3]"
        )
    grid = tuple(whole_number("grid", size) for size in sample["grid"])
    if len(grid) != 3:
        raise ValueError(f"grid {grid} must be (t, h, w)")
    if (frames := whole_number("num_frames", sample["num_frames"])) < 1:
        raise ValueError(f"num_frames {frames} must be at least 1")
    real = where[:, 1] >= 0
    ids, where = ids[real], where[real]
    wrong = ids[(ids < 0) | (ids >= tokenizer.config.codebook_size)]
    if len(wrong):
        raise ValueError(f"token {wrong[0]} is none of {tokenizer.config.codebook_size} codes")
    if not ((where >= 0) & (where < grid)).all():
        raise ValueError(f"a position lies outside of the grid {grid}")
    codes_thw, mask_thw = np.zeros(grid, np.int64), np.zeros(grid, np.bool_)
    codes_thw[tuple(where.T)] = ids
    mask_thw[tuple(where.T)] = True
    if int(mask_thw.sum()) != len(ids):
        raise ValueError("two tokens have the same position")
    told = {name: sample.get(name) for name in ITEM_FIELDS}
    # A model has no name for what it made.
    told["clip_id"] = told["clip_id"] or "of the sample"
    shape = dict(zip(("grid_t", "grid_h", "grid_w"), grid, strict=True))
    row = {**told, **shape, "mask": pack_mask(mask_thw), "tokens": codes_thw[mask_thw]}
    return reconstruct_row(tokenizer, row)


def _whole(sample: Mapping[str, Any], name: str) -> npt.NDArray[Any]:
    """A tensor, an array or lists of whole numbers."""
    values = sample[name]
    array = values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    # Lists of nothing have no kind of their own.
    if array.size and array.dtype.kind not in "iu":
        kind = values.dtype if isinstance(values, Tensor) else array.dtype
        raise ValueError(f"{name} of {kind} must be whole numbers")
    return array
