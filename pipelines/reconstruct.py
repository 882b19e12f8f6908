"""Tokens to video, window by window, and how far that is from the source.

Shapes: T frames, P panels, H rows, W columns, C = 3; lower-case t, h, w the latent grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from infotok_core.tokenizer import VideoCodec
from pipelines.errors import PlanMismatchError
from pipelines.metrics import psnr_db, ssim
from pipelines.picture_files import PictureFiles
from pipelines.pictures import kept_tokens
from schemas.info import CorpusInfo
from schemas.tokens import unpack_mask
from schemas.versions import FormatError

__all__ = [
    "ClipReport",
    "check_tokenizer",
    "mean_report",
    "reconstruct_row",
    "reconstruct_video",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipReport:
    """How one window came back.

    Attributes:
        clip_id: Its key.
        source: URI of its video.
        num_frames: Frames with content.
        num_tokens: Kept tokens.
        cells: Tokens at full rate.
        psnr_db: Mean over its frames; None if there was nothing to compare with.
        ssim: Likewise.
    """

    clip_id: str
    source: str
    num_frames: int
    num_tokens: int
    cells: int
    psnr_db: float | None
    ssim: float | None

    @property
    def rate(self) -> float:
        """Share of kept tokens."""
        return self.num_tokens / self.cells


def mean_report(reports: Iterable[ClipReport]) -> dict[str, float | int | None]:
    """Means over all frames, so a short last window weighs what it holds; the rate over tokens."""
    found = list(reports)
    frames = sum(report.num_frames for report in found)

    def mean(name: str) -> float | None:
        values = [(getattr(report, name), report.num_frames) for report in found]
        if not frames or any(value is None for value, _ in values):
            return None
        return sum(value * weight for value, weight in values) / frames

    tokens = sum(report.num_tokens for report in found)
    return {
        "clips": len(found),
        "num_frames": frames,
        "num_tokens": tokens,
        "rate": tokens / cells if (cells := sum(report.cells for report in found)) else None,
        "psnr_db": mean("psnr_db"),
        "ssim": mean("ssim"),
    }


def check_tokenizer(info: CorpusInfo, tokenizer: VideoCodec) -> None:
    """Refuse weights that did not write the tokens: they would decode them to noise.

    Raises:
        PlanMismatchError: Naming both.
    """
    if tokenizer.fingerprint != info.tokenizer.fingerprint:
        raise PlanMismatchError(
            f"the corpus was written by tokenizer {info.tokenizer.fingerprint[:16]}… (then called "
            f"{info.tokenizer.name!r}), this checkpoint is {tokenizer.fingerprint[:16]}…: name the "
            "right one with --checkpoint"
        )


def reconstruct_row(tokenizer: VideoCodec, row: Mapping[str, Any]) -> npt.NDArray[np.uint8]:
    """The frames of a token row, uint8 [num_frames, height, width, 3]; padding is cut off.

    Raises:
        FormatError: If the row does not fit together.
    """
    try:
        mask_thw = _mask(row)
        codes_thw = np.zeros(mask_thw.shape, np.int32)
        codes_thw[mask_thw] = row["tokens"]
        decoded = tokenizer.reconstruct(
            torch.from_numpy(codes_thw)[None], torch.from_numpy(mask_thw)[None]
        )
    except ValueError as error:
        raise FormatError(f"clip {row['clip_id']} cannot be decoded: {error}") from error
    frames_THWC = decoded[0].cpu().numpy()
    found, told = frames_THWC.shape[:3], (row["num_frames"], row["height"], row["width"])
    if found[0] < told[0] or found[1:] != told[1:]:
        raise FormatError(f"clip {row['clip_id']} decodes to {found}, but says it is {told}")
    return frames_THWC[: row["num_frames"]]


def reconstruct_video(
    tokenizer: VideoCodec,
    rows: Iterable[Mapping[str, Any]],
    *,
    originals: Iterable[npt.NDArray[np.uint8]] | None = None,
    pictures: PictureFiles | None = None,
) -> Iterator[ClipReport]:
    """Decode windows of one video; compare and draw them.

    Reports come as windows are done; files are complete when the iterator has ended.

    Args:
        tokenizer: The one that wrote the rows.
        rows: In order of their window.
        originals: Source frames of each row, uint8 [num_frames, height, width, 3]; None: nothing
            is compared.
        pictures: Entered and finished here; None: nothing is drawn.

    Raises:
        FormatError: If a row does not fit together.
        ValueError: If there are more originals than rows.
    """
    sources = None if originals is None else iter(originals)
    with ExitStack() as stack:
        if pictures is not None:
            stack.enter_context(pictures)
        for row in rows:
            frames_THWC = reconstruct_row(tokenizer, row)
            source_THWC = None if sources is None else next(sources)
            if pictures is not None:
                panels_TPHWC = _panels(tokenizer, row, frames_THWC, source_THWC)
                pictures.add(row["start_frame"], panels_TPHWC, fps=row["fps"])
            yield _report(row, frames_THWC, source_THWC)
        if sources is not None and next(sources, None) is not None:
            raise ValueError("there are source frames without a row")
        if pictures is not None:
            pictures.finish()


def _mask(row: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    return unpack_mask(row["mask"], (row["grid_t"], row["grid_h"], row["grid_w"]))


def _panels(
    tokenizer: VideoCodec,
    row: Mapping[str, Any],
    frames_THWC: npt.NDArray[np.uint8],
    source_THWC: npt.NDArray[np.uint8] | None,
) -> npt.NDArray[np.uint8]:
    config = tokenizer.config
    drawn_THWC = kept_tokens(
        frames_THWC if source_THWC is None else source_THWC,
        _mask(row),
        temporal=config.temporal_compression,
        spatial=config.spatial_compression,
    )
    first = [] if source_THWC is None else [source_THWC]
    return np.stack([*first, frames_THWC, drawn_THWC], axis=1)


def _report(
    row: Mapping[str, Any],
    frames_THWC: npt.NDArray[np.uint8],
    source_THWC: npt.NDArray[np.uint8] | None,
) -> ClipReport:
    compared = source_THWC is not None
    return ClipReport(
        clip_id=row["clip_id"],
        source=row["source"],
        num_frames=row["num_frames"],
        num_tokens=row["num_tokens"],
        cells=row["grid_t"] * row["grid_h"] * row["grid_w"],
        psnr_db=psnr_db(source_THWC, frames_THWC) if compared else None,
        ssim=ssim(source_THWC, frames_THWC) if compared else None,
    )
