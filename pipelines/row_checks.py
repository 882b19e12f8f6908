"""What must hold of every token row, whatever file it came from.

Shapes: t, h, w = latent frames, rows, columns; n = t*h*w positions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from schemas.dealing import Rule
from schemas.ids import clip_id, video_id
from schemas.info import CorpusInfo, TokenizerInfo
from schemas.rates import RateRule
from schemas.tokens import TOKEN_SCHEMA, float32, unpack_mask

__all__ = ["compare_rows", "row_faults"]


def row_faults(row: Mapping[str, Any], info: CorpusInfo | None, rule: Rule | None) -> list[str]:
    """What is wrong with one row; empty if nothing is.

    Args:
        row: As `schemas.tokens.table_to_rows` or a WebDataset sample gives it.
        info: Of the corpus; None skips what only it can tell.
        rule: By which the row got its tokens; likewise.
    """
    missing = [
        field.name for field in TOKEN_SCHEMA if not field.nullable and row.get(field.name) is None
    ]
    if missing:
        return [f"has no {', '.join(missing)}"]
    try:
        faults = _identity(row) + _pictures(row) + _selection(row)
        if info is not None:
            faults += _geometry(row, info.tokenizer) + _place(row, info.window)
        if rule is not None and not faults:
            faults += _routing(row, rule)
    except (KeyError, TypeError, ValueError) as error:
        return [str(error)]
    return faults


def _identity(row: Mapping[str, Any]) -> list[str]:
    faults: list[str] = []
    if row["video_id"] != video_id(row["source"]):
        faults.append(f"video_id is not that of source {row['source']!r}")
    if row["clip_id"] != clip_id(row["video_id"], row["window_index"]):
        faults.append(f"clip_id is not that of its video and window {row['window_index']}")
    start, end = row["start_time_s"], row["end_time_s"]
    if not (math.isfinite(start) and math.isfinite(end)):
        faults.append(f"lies between {start} s and {end} s")
    elif end <= start:
        faults.append(f"ends at {end} s before it starts at {start} s")
    if row["num_frames"] < 1 or row["start_frame"] < 0:
        faults.append(f"has {row['num_frames']} frames from {row['start_frame']}")
    return faults


def _pictures(row: Mapping[str, Any]) -> list[str]:
    faults = [
        f"has {name} {row[name]}"
        for name in ("width", "height", "source_width", "source_height")
        if row[name] < 1
    ]
    for name in ("fps", "source_fps"):
        rate = row.get(name)
        if rate is not None and not (math.isfinite(rate) and rate > 0):
            faults.append(f"has {name} {rate}")
    return faults


def _selection(row: Mapping[str, Any]) -> list[str]:
    shape = row["grid_t"], row["grid_h"], row["grid_w"]
    if min(shape) < 1:
        return [f"has the grid {shape}"]
    faults: list[str] = []
    mask = unpack_mask(row["mask"], shape)
    kept, cells = int(mask.sum()), mask.size
    length = len(row["tokens"])
    if not row["num_tokens"] == length == kept:
        faults.append(f"num_tokens {row['num_tokens']}, {length} tokens, {kept} bits in the mask")
    if list(row["frame_token_counts"]) != mask.reshape(shape[0], -1).sum(axis=1).tolist():
        faults.append("frame_token_counts are not those of the mask")
    if row["rate"] != float32(row["num_tokens"] / cells):
        faults.append(f"rate {row['rate']} is not {row['num_tokens']} / {cells}")
    frame_elbo = np.asarray(row["frame_elbo"], np.float64)
    if len(frame_elbo) != shape[0]:
        faults.append(f"frame_elbo has {len(frame_elbo)} values for {shape[0]} latent frames")
    elif not (np.isfinite(frame_elbo) & (frame_elbo >= 0)).all():
        faults.append("frame_elbo holds a negative or non-finite value")
    elif not math.isclose(row["elbo"], frame_elbo.mean(), rel_tol=1e-5, abs_tol=1e-9):
        faults.append(f"elbo {row['elbo']} is not the mean of frame_elbo")
    return faults


def _geometry(row: Mapping[str, Any], tokenizer: TokenizerInfo) -> list[str]:
    faults: list[str] = []
    if row["tokenizer"] != tokenizer.fingerprint:
        faults.append(f"is by tokenizer {row['tokenizer']}")
    if len(row["tokens"]) and int(np.max(row["tokens"])) >= tokenizer.num_codes:
        faults.append(f"has token {np.max(row['tokens'])} of {tokenizer.num_codes} codes")
    frames = 1 + -(-(row["num_frames"] - 1) // tokenizer.temporal_compression)
    if row["grid_t"] != frames:
        faults.append(f"has {row['grid_t']} latent frames for {row['num_frames']} frames")
    for cells, pixels in (("grid_h", "height"), ("grid_w", "width")):
        if row[cells] * tokenizer.spatial_compression != row[pixels]:
            faults.append(f"has {cells} {row[cells]} for {pixels} {row[pixels]}")
    return faults


def _place(row: Mapping[str, Any], window: Mapping[str, Any]) -> list[str]:
    faults: list[str] = []
    start = row["window_index"] * (window["frames"] - window["overlap"])
    if row["start_frame"] != start:
        faults.append(f"starts at frame {row['start_frame']}, its window at {start}")
    if row["num_frames"] > window["frames"]:
        faults.append(f"has {row['num_frames']} frames, a window {window['frames']}")
    return faults


def _routing(row: Mapping[str, Any], rule: Rule) -> list[str]:
    frame_cells = row["grid_h"] * row["grid_w"]
    if rule.is_exact and rule.min_rate * frame_cells < 1:
        # A tail may have to keep a token where it asks for less: the windows after it pay for that.
        return []
    cells, kept = row["grid_t"] * frame_cells, row["num_tokens"]
    asked = {f"rate_target {row['rate_target']}": row["rate_target"]}
    if isinstance(rule, RateRule):
        asked[f"elbo {row['elbo']}"] = rule.rate_at(row["elbo"])
    # An exact budget hands fractions on from window to window; float32 adds a little.
    slack = 1 + 1e-5 * cells
    return [
        f"{column} asks for {rate * cells:.1f} of {cells} tokens, it has {kept}"
        for column, rate in asked.items()
        if not (0 < rate <= 1 and abs(max(rate * cells, 1) - kept) <= slack)
    ]


def compare_rows(parquet: Mapping[str, Any], sample: Mapping[str, Any]) -> list[str]:
    """Columns in which a Parquet row and the WebDataset sample of the same clip differ."""
    names = {name for row in (parquet, sample) for name in row}
    return sorted(name for name in names if _plain(parquet.get(name)) != _plain(sample.get(name)))


def _plain(value: Any) -> Any:  # noqa: ANN401  a cell of any column
    if isinstance(value, np.ndarray):
        return value.tolist()
    # JSON cannot say NaN or infinity: the sample leaves them out.
    return None if isinstance(value, float) and not math.isfinite(value) else value
