"""Would a run work here? Each check finds one thing, and says what to do about it.

Nothing is left behind: the probes of the stores are deleted again.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from av.codec.codec import Codec, UnknownCodecError

from infotok_core.errors import CheckpointError
from infotok_core.opening import named_dtype, open_tokenizer
from infotok_core.tokenizer import VideoCodec
from pipelines.config import RunConfig
from pipelines.doctor_places import (
    check_disk,
    check_scratch,
    check_shared,
    check_shared_memory,
    check_source,
    check_store,
)
from pipelines.errors import PipelineError
from pipelines.findings import Finding, bad, doubtful, good
from pipelines.spreading import block_bytes, cpu_actors
from pipelines.storage import Store
from pipelines.tokenizer_choice import check_windows, chosen_tokenizer
from pipelines.video_writer import writes_h264

__all__ = ["ClusterShape", "examine", "gpu_memory"]

_DECODERS = {
    "H.264": ("h264",),
    "HEVC": ("hevc",),
    "VP9": ("vp9", "libvpx-vp9"),
    "AV1": ("libdav1d", "libaom-av1", "av1"),
    "MPEG-4": ("mpeg4",),
    "ProRes": ("prores",),
}
_KEEP_ASPECT = 16 / 9


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterShape:
    """What a run could use.

    Attributes:
        object_store_bytes: Of all nodes; None if Ray is not running yet.
        autoscaled: Whether an autoscaler may bring more nodes than are up; of which kinds, it does
            not tell.
    """

    cpus: int
    gpus: int
    nodes: int
    object_store_bytes: int | None = None
    autoscaled: bool = False


def examine(
    config: RunConfig, shape: ClusterShape | None, *, source: str | None, stores: dict[str, Store]
) -> Iterator[Finding]:
    """All checks, as they are done.

    Args:
        shape: None leaves out what depends on it.
        source: INPUT of the run; None leaves it out.
        stores: To be written to, by what they are called.
    """
    yield _codecs()
    tokenizer, found = _weights(config)
    yield found
    if tokenizer is not None:
        yield _one_batch(config, tokenizer)
    if shape is not None:
        yield from _cluster(config, shape)
    if source is not None:
        decoders = config.runtime.decoders or max(shape.cpus if shape else 0, 1)
        videos, found = check_source(source, config, at_most=decoders)
        yield found
        if videos is not None and shape is not None:
            yield _spread(videos, decoders)
    shared = check_shared(source, stores, nodes=shape.nodes if shape else 1)
    if shared is not None:
        yield shared
    for name, store in stores.items():
        yield check_store(name, store, single_writer=config.runtime.single_writer)
        if store.local:
            yield check_disk(name, Path(store.url), config)
    # Where Ray looks.
    yield check_scratch(Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()))
    if Path("/dev/shm").exists():
        yield check_shared_memory(Path("/dev/shm"))


def _codecs() -> Finding:
    missing = [name for name, codecs in _DECODERS.items() if not any(map(_decodes, codecs))]
    there = ", ".join(name for name in _DECODERS if name not in missing)
    advice = "install the `av` wheel of PyPI, whose FFmpeg has them"
    if "H.264" in missing:
        return bad("codecs", f"FFmpeg cannot decode {', '.join(missing)}", advice)
    if missing:
        what = f"decodes {there}, but not {', '.join(missing)}: such videos will be set aside"
        return doubtful("codecs", what, advice)
    if not writes_h264():
        return doubtful("codecs", f"decodes {there}; no H.264 for reports", advice)
    return good("codecs", f"decodes {there}; writes H.264")


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
        return None, bad(name, f"{checkpoint} cannot be used: {error}", advice)
    return tokenizer, good(name, f"{checkpoint}, {identity.fingerprint[:16]}…, on {device}")


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
        return bad("memory", f"{what} cannot be encoded: {str(error).splitlines()[0]}", advice)
    if not gpu:
        return good("memory", f"{what}: encoded on the CPU")
    peak, total = torch.cuda.max_memory_allocated(), torch.cuda.mem_get_info()[1]
    found = gpu_memory(peak, total, actors=config.runtime.actors_per_gpu)
    return replace(found, what=f"{what}: {found.what}; {number / seconds:.1f} windows/s")


def gpu_memory(peak: int, total: int, *, actors: int) -> Finding:
    """Whether so many tokenizers, each with ``peak`` bytes, find room on a GPU of ``total``."""
    told = f"{actors} x {peak / 1e9:.1f} of {total / 1e9:.1f} GB"
    if actors * peak > 0.9 * total:
        advice = "halve tokenizer.batch_size, or make runtime.actors_per_gpu smaller"
        return doubtful("memory", told, advice)
    return good("memory", told)


def _cluster(config: RunConfig, shape: ClusterShape) -> Iterator[Finding]:
    told = f"nodes: {shape.nodes}, CPUs: {shape.cpus}, GPUs: {shape.gpus}"
    if shape.autoscaled:
        told += ", and an autoscaler"
        wrong = list(_unsaid(config, shape, told))
    else:
        wrong = [found for found in _lacking(config, shape, told) if found is not None]
    yield from wrong or [good("cluster", told)]
    need, there = _object_store_bytes(config, shape), shape.object_store_bytes
    if there is not None and there < need and not shape.autoscaled:
        what = f"{there / 1e9:.1f} GB for frames on their way, {need / 1e9:.1f} GB would be good"
        advice = (
            "start Ray with --object-store-memory, or set runtime.decoders or calls_per_actor lower"
        )
        yield doubtful("object store", what, advice)


def _object_store_bytes(config: RunConfig, shape: ClusterShape) -> int:
    """What keeps everyone at work: Ray Data takes half of it, and as many blocks wait as are held.

    With half as much 16 decoders beside a GPU were busy for little more than half of the time.
    """
    calls = _gpu_places(config, shape) * config.runtime.calls_per_actor
    return 4 * block_bytes(config) * ((config.runtime.decoders or max(shape.cpus, 1)) + calls)


def _gpu_places(config: RunConfig, shape: ClusterShape) -> int:
    """Tokenizers that the GPUs take."""
    return 0 if config.tokenizer.device == "cpu" else shape.gpus * config.runtime.actors_per_gpu


def _unsaid(config: RunConfig, shape: ClusterShape, told: str) -> Iterator[Finding]:
    """What an autoscaler has to be told, as the nodes that are up say nothing of it."""
    device, runtime = config.tokenizer.device, config.runtime
    advice: list[str] = []
    if not shape.cpus:
        advice.append("it needs nodes with CPUs")
    if device == "cuda" and not shape.gpus:
        advice.append("it needs nodes with GPUs")
    if device == "auto" and not shape.gpus:
        advice.append("if it may bring GPUs, set tokenizer.device = cuda: auto is now the CPU")
    if runtime.decoders is None or runtime.actors is None:
        advice.append(
            "set runtime.decoders and runtime.actors for all that it may bring: left out, they are "
            "counted from the nodes that are up"
        )
    if advice:
        yield doubtful("cluster", told, "; ".join(advice))


def _lacking(config: RunConfig, shape: ClusterShape, told: str) -> Iterator[Finding | None]:
    name, runtime = "cluster", config.runtime
    if not shape.cpus:
        what = f"{told}: there is no CPU to decode on, and a run waits until its watchdog"
        yield bad(name, what, "start nodes with CPUs; a head may have none")
    if config.tokenizer.device == "cuda" and not shape.gpus:
        advice = "set RAY_ADDRESS to a cluster with GPUs"
        yield bad(name, f"{told}, but tokenizer.device = cuda", f"{advice}, or device = auto")
    else:
        yield _actors(config, shape, told)
    if (runtime.decoders or 0) > shape.cpus:
        yield doubtful(name, f"{told}, but runtime.decoders = {runtime.decoders}",
                        f"runtime.decoders = {max(shape.cpus, 1)}, or leave it out")  # fmt: skip


def _actors(config: RunConfig, shape: ClusterShape, told: str) -> Finding | None:
    name, asked = "cluster", config.runtime.actors or 0
    places = _gpu_places(config, shape)
    if places and asked > places:
        return bad(name, f"{told}, but runtime.actors = {asked}: some never start",
                    f"runtime.actors = {places}, or leave it out")  # fmt: skip
    if not places and asked > (enough := cpu_actors(shape.cpus, config)):
        threads = config.tokenizer.cpu_threads
        return doubtful(name, f"{told}, but runtime.actors = {asked}, each of {threads} threads "
                         "and with weights of its own",
                         f"runtime.actors = {enough}, or leave it out")  # fmt: skip
    return None


def _spread(videos: int, decoders: int) -> Finding:
    """Whether there are videos for everybody: each is decoded by one process."""
    if videos < decoders:
        what = f"{videos} videos for {decoders} decoders: some have nothing to do"
        return doubtful("plan", what, "a smaller machine is as fast, or cut long videos in several")
    return good("plan", f"videos for all of {decoders} decoders")
