"""Would a run work here? Each check finds one thing, and says what to do about it.

Nothing is left behind: the probes of the stores are deleted again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from av.codec.codec import Codec, UnknownCodecError

from infotok_core.errors import CheckpointError
from infotok_core.opening import named_dtype, open_tokenizer
from infotok_core.tokenizer import VideoCodec
from pipelines.config import RunConfig
from pipelines.errors import PipelineError, StorageError
from pipelines.reachable import check_reachable
from pipelines.sources import open_source, source_url
from pipelines.spreading import block_bytes
from pipelines.storage import Store
from pipelines.tokenizer_choice import check_windows, chosen_tokenizer
from pipelines.video_writer import writes_h264
from pipelines.wording import compact

__all__ = ["ClusterShape", "Finding", "Verdict", "examine"]

_T = TypeVar("_T")
_DECODERS = {
    "H.264": ("h264",),
    "HEVC": ("hevc",),
    "VP9": ("vp9", "libvpx-vp9"),
    "AV1": ("libdav1d", "libaom-av1", "av1"),
    "MPEG-4": ("mpeg4",),
    "ProRes": ("prores",),
}
_KEEP_ASPECT = 16 / 9
_WINDOW_BYTES = 50_000
"""Stored per window of 33x256x256: 36 kB of analysis, and rows at half of the tokens."""
_WINDOW_VOLUME = 33 * 256 * 256
_LEAST_FREE = 1 << 30
_LEAST_SHARED = 1 << 30
_RAY_FULL = 0.95
"""At this share Ray stops writing to a disk."""


class Verdict(StrEnum):
    """Whether a run would work."""

    GOOD = "ok"
    DOUBTFUL = "look"
    BAD = "FAIL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        advice: What to do; empty where nothing has to be done.
    """

    name: str
    verdict: Verdict
    what: str
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterShape:
    """What a run could use.

    Attributes:
        object_store_bytes: Of all nodes; None if Ray is not running yet.
    """

    cpus: int
    gpus: int
    nodes: int
    object_store_bytes: int | None = None


def examine(
    config: RunConfig, shape: ClusterShape, *, source: str | None, stores: dict[str, Store]
) -> Iterator[Finding]:
    """All checks, as they are done.

    Args:
        source: INPUT of the run; None leaves it out.
        stores: To be written to, by what they are called.
    """
    yield _codecs()
    tokenizer, found = _weights(config)
    yield found
    if tokenizer is not None:
        yield _one_batch(config, tokenizer)
    yield from _cluster(config, shape)
    if source is not None:
        yield _source(source, config)
    for name, store in stores.items():
        yield _writable(name, store, single_writer=config.runtime.single_writer)
        if store.local:
            yield _disk(name, Path(store.url), config)
    yield _scratch(Path("/tmp"))
    if Path("/dev/shm").exists():
        yield _shared_memory(Path("/dev/shm"))


def _good(name: str, what: str) -> Finding:
    return Finding(name=name, verdict=Verdict.GOOD, what=what)


def _doubtful(name: str, what: str, advice: str) -> Finding:
    return Finding(name=name, verdict=Verdict.DOUBTFUL, what=what, advice=advice)


def _bad(name: str, what: str, advice: str) -> Finding:
    return Finding(name=name, verdict=Verdict.BAD, what=what, advice=advice)


def _codecs() -> Finding:
    missing = [name for name, codecs in _DECODERS.items() if not any(map(_decodes, codecs))]
    there = ", ".join(name for name in _DECODERS if name not in missing)
    advice = "install the `av` wheel of PyPI, whose FFmpeg has them"
    if "H.264" in missing:
        return _bad("codecs", f"FFmpeg cannot decode {', '.join(missing)}", advice)
    if missing:
        what = f"decodes {there}, but not {', '.join(missing)}: such videos will be set aside"
        return _doubtful("codecs", what, advice)
    if not writes_h264():
        return _doubtful("codecs", f"decodes {there}; no H.264 for reports", advice)
    return _good("codecs", f"decodes {there}; writes H.264")


def _decodes(codec: str) -> bool:
    try:
        Codec(codec, "r")
    except UnknownCodecError:
        return False
    return True


def _weights(config: RunConfig) -> tuple[VideoCodec | None, Finding]:
    name, checkpoint = "weights", config.tokenizer.checkpoint
    advice = "name another --checkpoint, or fit window.frames and space.size to it"
    try:
        identity = chosen_tokenizer(config)
        check_windows(config, identity)
        device = _device(config)
        wanted = named_dtype(config.tokenizer.dtype)
        tokenizer = open_tokenizer(checkpoint, device=device, dtype=wanted)
    except (PipelineError, CheckpointError, ValueError) as error:
        return None, _bad(name, f"{checkpoint} cannot be used: {error}", advice)
    return tokenizer, _good(name, f"{checkpoint}, {identity.fingerprint[:16]}…, on {device}")


def _device(config: RunConfig) -> str:
    # The GPUs of a cluster are elsewhere; what can be tried is what is here.
    there = torch.cuda.is_available()
    return "cuda" if there and config.tokenizer.device != "cpu" else "cpu"


def _one_batch(config: RunConfig, tokenizer: VideoCodec) -> Finding:
    """The largest batch there is: whether it fits, and how long it takes."""
    gpu = tokenizer.device.type == "cuda"
    size, number = config.space.size, config.tokenizer.batch_size if gpu else 1
    width = size
    if config.space.mode == "keep":
        width = round(size * _KEEP_ASPECT / 16) * 16
    shape = (number, config.window.frames, size, width, 3)
    what = f"{number} windows of {config.window.frames}x{size}x{width}"
    frames_BTHWC = torch.from_numpy(np.zeros(shape, np.uint8)).to(tokenizer.device)
    try:
        tokenizer.analyse(frames_BTHWC)
        start = time.perf_counter()
        if gpu:
            torch.cuda.reset_peak_memory_stats()
            tokenizer.analyse(frames_BTHWC)
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    except (torch.cuda.OutOfMemoryError, MemoryError, RuntimeError) as error:
        advice = "make tokenizer.batch_size, window.frames or space.size smaller"
        return _bad("memory", f"{what} cannot be encoded: {str(error).splitlines()[0]}", advice)
    if not gpu:
        return _good("memory", f"{what}: encoded on the CPU")
    peak, total = torch.cuda.max_memory_allocated(), torch.cuda.mem_get_info()[1]
    told = f"{what}: {peak / 1e9:.1f} of {total / 1e9:.1f} GB, {number / seconds:.1f} windows/s"
    if peak > 0.9 * total:
        advice = "halve tokenizer.batch_size: another process on the GPU would end the run"
        return _doubtful("memory", told, advice)
    return _good("memory", told)


def _cluster(config: RunConfig, shape: ClusterShape) -> Iterator[Finding]:
    runtime = config.runtime
    told = f"{shape.nodes} nodes, {shape.cpus} CPUs, {shape.gpus} GPUs"
    places = shape.gpus * runtime.actors_per_gpu
    if config.tokenizer.device == "cuda" and not shape.gpus:
        yield _bad("cluster", f"{told}, but tokenizer.device = cuda",
                   "set RAY_ADDRESS to a cluster with GPUs, or device = auto")  # fmt: skip
    elif places and config.tokenizer.device != "cpu" and (runtime.actors or 0) > places:
        yield _bad("cluster", f"{told}, but runtime.actors = {runtime.actors}: some never start",
                   f"runtime.actors = {places}, or leave it out")  # fmt: skip
    elif (runtime.decoders or 0) > shape.cpus:
        yield _doubtful("cluster", f"{told}, but runtime.decoders = {runtime.decoders}",
                        f"runtime.decoders = {shape.cpus}, or leave it out")  # fmt: skip
    else:
        yield _good("cluster", told)
    need = 4 * block_bytes(config) * max(shape.cpus, 1)
    if shape.object_store_bytes is not None and shape.object_store_bytes < need:
        there = shape.object_store_bytes
        what = f"{there / 1e9:.1f} GB for frames on their way, {need / 1e9:.1f} GB would be good"
        advice = "start Ray with --object-store-memory, or set runtime.decoders lower"
        yield _doubtful("object store", what, advice)


def _source(url: str, config: RunConfig) -> Finding:
    advice = (
        "check the name, --endpoint-url and --profile; listing needs s3:ListBucket, reading "
        "s3:GetObject"
    )

    def first_byte() -> str:
        source = open_source(url, config.source, config.source_storage)
        first = next(iter(source.objects), None)
        if first is None:
            raise PipelineError(f"{url} lists no object (see source.include)")
        place = source_url(source.root, first.uri)
        if Store(place).local:
            with Path(place).open("rb") as file:
                file.read(1)
        else:
            Store(source.root, config.source_storage).remote("cat_file", place, start=0, end=1)
        return first.uri

    return _tried("input", first_byte, lambda uri: f"{url} lists and reads ({uri})", advice)


def _writable(name: str, store: Store, *, single_writer: bool) -> Finding:
    def write() -> None:
        check_reachable(store)
        try:
            store.check_conditional_writes()
        except StorageError:
            if not single_writer:
                raise
            # Without the condition it has to be written to all the same.
            store.replace("_probe-doctor", b"")
            store.delete("_probe-doctor")

    advice = (
        "check the name, --endpoint-url and --profile; writing needs s3:PutObject, GetObject, "
        "ListBucket and DeleteObject. A store that ignores If-None-Match needs --single-writer, "
        "and one run at a time"
    )
    how = "only one writer" if single_writer else "a name is taken only once"
    return _tried(name, write, lambda _: f"{store.url} can be written to, {how}", advice)


def _tried(name: str, check: Callable[[], _T], told: Callable[[_T], str], advice: str) -> Finding:
    try:
        return _good(name, told(check()))
    except (PipelineError, OSError) as error:
        return _bad(name, str(error), advice)


def _disk(name: str, folder: Path, config: RunConfig) -> Finding:
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    volume = config.window.frames * config.space.size**2
    windows = round(free / (_WINDOW_BYTES * volume / _WINDOW_VOLUME))
    told = f"{free / 1e9:.0f} GB free: room for some {compact(windows)} windows"
    if free < _LEAST_FREE:
        return _bad(f"{name} disk", told, "free some, or write elsewhere")
    return _good(f"{name} disk", told)


def _scratch(folder: Path) -> Finding:
    usage = shutil.disk_usage(folder)
    told = f"{folder}: {usage.free / 1e9:.0f} GB free"
    if usage.free < (1 - _RAY_FULL) * usage.total:
        return _bad("scratch", f"{told}, and Ray stops at {_RAY_FULL:.0%}",
                    "free some, or set RAY_TMPDIR to another disk")  # fmt: skip
    return _good("scratch", told)


def _shared_memory(folder: Path) -> Finding:
    total = shutil.disk_usage(folder).total
    told = f"{folder} of {total / 1e9:.1f} GB"
    if total < _LEAST_SHARED:
        advice = "give the container more: --shm-size=8g, or an emptyDir of medium Memory"
        return _doubtful("shared memory", f"{told}: Ray falls back to slow files", advice)
    return _good("shared memory", told)
