"""What checksums cannot tell of a corpus: do its tokens show the videos, and come out again?

A few windows are chosen at random (the same each time) and decoded, or encoded from their source
once more.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from infotok_core.router import select
from infotok_core.tokenizer import VideoCodec
from pipelines.analyser import UnitAnalyser
from pipelines.corpus_reader import CorpusReader, StoredVideo
from pipelines.errors import PipelineError
from pipelines.reconstruct import reconstruct_video
from pipelines.records import DecodedUnit
from pipelines.source_windows import SourceWindows
from schemas.ids import WINDOWS_PER_UNIT
from schemas.reconstruction import MeasuredClip, ReconstructionSample
from schemas.windows import WindowSpan

__all__ = ["EncodedAgain", "encode_again", "reconstruct_sample"]

_CANDIDATES = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedAgain:
    """A window, encoded from its source once more.

    Attributes:
        clip_id: Its key.
        num_tokens: Kept tokens.
        different: Stored positions that another token has, or none, when the same number is kept.
    """

    clip_id: str
    num_tokens: int
    different: int


def reconstruct_sample(
    reader: CorpusReader, tokenizer: VideoCodec, sources: SourceWindows, *, count: int
) -> ReconstructionSample:
    """Decode some windows and measure how far they are from their source.

    Raises:
        PipelineError: If the corpus holds no window.
        StorageError: If a source is gone; PlanMismatchError: if it is another.
        FormatError: If a row cannot be decoded.
    """
    clips: list[MeasuredClip] = []
    for video in _sample(reader, count):
        rows = reader.rows(video)
        for clip in reconstruct_video(tokenizer, rows, originals=sources.frames(video)):
            assert clip.psnr_db is not None
            assert clip.ssim is not None
            measured = MeasuredClip(
                clip_id=clip.clip_id,
                source=clip.source,
                num_frames=clip.num_frames,
                num_tokens=clip.num_tokens,
                rate=clip.rate,
                psnr_db=clip.psnr_db,
                ssim=clip.ssim,
            )
            clips.append(measured)
    if not clips:
        raise PipelineError(f"{reader.store.url} holds no window to reconstruct")
    return ReconstructionSample(
        tokens_key=reader.info.tokens_key,
        tokenizer=tokenizer.fingerprint,
        clips=tuple(sorted(clips, key=lambda clip: clip.clip_id)),
    )


def encode_again(
    reader: CorpusReader,
    tokenizer: VideoCodec,
    sources: SourceWindows,
    *,
    count: int,
    batch_size: int,
) -> Iterator[EncodedAgain]:
    """Encode the source of some windows and compare the tokens with the stored ones.

    On the device kind, precision and number of threads of pass one nothing differs; elsewhere a
    token in some hundreds may, where two were nearly as good.

    Args:
        batch_size: Of the run: on a GPU the last bits depend on it.

    Raises:
        PipelineError: If a window cannot be analysed any more.
        StorageError: If a source is gone; PlanMismatchError: if it is another.
    """
    analyser = UnitAnalyser(tokenizer, batch_size=batch_size)
    frames = int(reader.info.window["frames"])
    for video in _sample(reader, count):
        for row, content_THWC in zip(reader.rows(video), sources.frames(video), strict=True):
            yield _encoded(analyser, row, _padded(content_THWC, frames))


def _sample(reader: CorpusReader, count: int) -> Iterator[StoredVideo]:
    """Single windows, those of one video together."""
    names = ("clip_id", "video_id", "window_index")
    found = list(reader.sample(names, limit=_CANDIDATES))
    found.sort(key=lambda values: hashlib.sha256(values[0].encode()).digest())
    wanted: defaultdict[str, set[int]] = defaultdict(set)
    for _, video_id, window_index in found[:count]:
        wanted[video_id].add(window_index)
    for video in reader.videos(wanted):
        chosen = [
            (key, file)
            for key, file in zip(video.keys, video.files, strict=True)
            if key.window_index in wanted[video.video_id]
        ]
        keys, files = zip(*chosen, strict=True)
        yield replace(video, keys=keys, files=files, whole=len(keys) == len(video.keys))


def _padded(content_THWC: npt.NDArray[np.uint8], frames: int) -> npt.NDArray[np.uint8]:
    """As pass one pads the last window of a video: by repeating its last frame."""
    missing = frames - len(content_THWC)
    return np.concatenate([content_THWC, np.repeat(content_THWC[-1:], missing, axis=0)])


def _encoded(
    analyser: UnitAnalyser, row: dict[str, Any], frames_THWC: npt.NDArray[np.uint8]
) -> EncodedAgain:
    span = WindowSpan(
        window_index=row["window_index"],
        start_frame=row["start_frame"],
        num_frames=row["num_frames"],
        start_time_s=row["start_time_s"],
        end_time_s=row["end_time_s"],
    )
    unit = DecodedUnit(
        video=row["video_id"],
        unit_index=row["window_index"] // WINDOWS_PER_UNIT,
        path="",
        spans=(span,),
        frames_NTHWC=frames_THWC[None],
    )
    (analysed,) = analyser.analyse([unit])
    if analysed.failure is not None:
        raise PipelineError(f"clip {row['clip_id']}: {analysed.failure.detail}")
    (window,) = analysed.windows
    codes = window.codes.reshape(-1)
    kept = np.asarray(select(window.information.reshape(-1), row["num_tokens"]), bool)
    stored = np.unpackbits(np.frombuffer(row["mask"], np.uint8))[: codes.size].astype(bool)
    tokens = np.zeros(codes.size, np.int64)
    tokens[stored] = row["tokens"]
    different = stored & ~(kept & (codes == tokens))
    return EncodedAgain(
        clip_id=row["clip_id"],
        num_tokens=row["num_tokens"],
        different=int(np.count_nonzero(different)),
    )
