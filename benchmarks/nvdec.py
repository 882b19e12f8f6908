"""NVDEC beside FFmpeg's own decoders: CPU-seconds, pictures, and what becomes of damage.

    python benchmarks/nvdec.py FILE... [--changes 40] [--seed 1]

Files of 4:2:0, of 8 or 10 bits.

Each file is decoded by FFmpeg on one thread, by NVDEC with its pictures copied back, and by NVDEC
with its pictures left on the GPU (what scaling them there could save at most). Prints CPU- and
wall-milliseconds a frame, and whether the pictures are the same. Then each file is damaged so often
at random (`decode_damage.py`), and decoded by both with FFmpeg's log read as the pipeline reads it:
"noticed", "same pictures", or "unnoticed": other pictures, and no word about it.
"""

from __future__ import annotations

import argparse
import platform
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.codec.hwaccel import HWAccel
from av.video.plane import VideoPlane
from decode_damage import change
from numpy.typing import NDArray

from pipelines.damage import FFmpegLog, harmless

_ROUNDS = 3
_PATHS = ("ffmpeg", "nvdec", "nvdec, on the GPU")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--changes", type=int, default=40, help="damaged copies of each file")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(f"{platform.machine()}, av {av.__version__}, {time.strftime('%Y-%m-%d')}")
    for file in arguments.files:
        try:
            good = print_times(file)
        except (av.FFmpegError, RuntimeError) as error:
            print(f"{file.name}: {error!r}", flush=True)
            continue
        damaged = {path: Counter[str]() for path in good}
        source, data = random.Random(arguments.seed), file.read_bytes()
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(arguments.changes):
                target = Path(folder) / file.name
                target.write_bytes(change(data, source))
                for path, outcomes in damaged.items():
                    outcomes[judge(target, path, good[path])] += 1
        for path, outcomes in damaged.items():
            print(f"  damaged, {path}: {dict(outcomes.most_common())}", flush=True)


def frames(file: Path, path: str) -> Iterator[av.VideoFrame]:
    """Of a file, in order of showing; ``path`` is one of `_PATHS`."""
    accelerator: HWAccel | None = None
    if path != "ffmpeg":
        accelerator = HWAccel("cuda", allow_software_fallback=False, is_hw_owned="GPU" in path)
    with av.open(str(file), hwaccel=accelerator) as container:
        stream = container.streams.video[0]
        if accelerator is None:
            stream.codec_context.thread_count = 1
            stream.codec_context.thread_type = "NONE"
        yield from container.decode(stream)


def print_times(file: Path) -> dict[str, list[int]]:
    """A line per path; the first round opens the device and does not count.

    Returns:
        The pictures by each path that gives any to this machine.
    """
    found: dict[str, list[int]] = {}
    for path in _PATHS:
        rounds: list[tuple[float, float]] = []
        count = 0
        for _ in range(_ROUNDS + 1):
            cpu, wall = time.process_time(), time.perf_counter()
            count = sum(1 for _ in frames(file, path))
            rounds.append((time.process_time() - cpu, time.perf_counter() - wall))
        cpu_ms, wall_ms = (1000 * min(column) / count for column in zip(*rounds[1:], strict=True))
        same = ""
        if "GPU" not in path:
            found[path] = pictures(file, path)
            same = f", same pictures: {found[path] == found['ffmpeg']}"
        print(f"{file.name}, {path}: {count} frames, {cpu_ms:.2f} CPU-ms a frame, "
              f"{wall_ms:.2f} ms{same}", flush=True)  # fmt: skip
    return found


def pictures(file: Path, path: str) -> list[int]:
    """A checksum of each picture."""
    return [checksum(frame) for frame in frames(file, path)]


def checksum(frame: av.VideoFrame) -> int:
    """Of luma, then of both chromas, however they are laid out."""
    wide = "10" in frame.format.name
    luma, *chroma = (samples(plane, wide=wide) for plane in frame.planes)
    width = -(-frame.width // 2)
    if len(chroma) == 1:  # NVDEC's: interleaved, and ten bits at the upper end of sixteen
        chroma = [chroma[0][:, start : 2 * width : 2] for start in (0, 1)]
    planes = [luma[:, : frame.width], *(plane[:, :width] for plane in chroma)]
    shift = 6 if frame.format.name == "p010le" else 0
    return hash(b"".join((plane >> shift).tobytes() for plane in planes))


def samples(plane: VideoPlane, *, wide: bool) -> NDArray[np.unsignedinteger]:
    """Lines of a plane, with what fills them up."""
    lines = np.frombuffer(plane, np.uint16 if wide else np.uint8)
    return lines.reshape(plane.height, -1)


def judge(file: Path, path: str, good: list[int]) -> str:
    """What becomes of a damaged file."""
    with FFmpegLog() as log:
        try:
            found = [(checksum(frame), frame.is_corrupt) for frame in frames(file, path)]
        except (av.FFmpegError, OSError, RuntimeError, IndexError):
            return "noticed"
        errors = [line for line in log.drain() if line.is_error and not harmless(line)]
    if errors or any(corrupt for _, corrupt in found):
        return "noticed"
    return "same pictures" if [value for value, _ in found] == good else "unnoticed"


if __name__ == "__main__":
    main()
