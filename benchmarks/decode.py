"""What decoding to windows costs, against what decoding alone costs.

    python benchmarks/decode.py [--json decode.json] [FILE ...]

For each file, three things are timed in turn, `--rounds` times, in CPU milliseconds per source
frame (user + system, all processes; on a shared machine wall time says little):

- decode: PyAV on one thread, frames thrown away: the floor;
- windows: our path in this process (crop, scale, RGB, windows of 33 x 256 x 256);
- process: the same through `DecoderProcess`, its own process and the copy between them included.

Without FILE it takes videos from ../shared, and a 1080p one that it makes from them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

from pipelines.config import DecodeLimits, SpaceConfig, WindowConfig
from pipelines.damage import FFmpegLog
from pipelines.decode import DecodeRequest, DecoderProcess
from pipelines.decoding import VideoDecoding

SHARED = Path(os.environ.get("INFOTOK_SHARED", Path(__file__).parents[2] / "shared")) / "data"
FILES = (
    "originals/formats/mmaction2__S001C001P001R001A001_rgb_0ea541.avi",
    "originals/val/openvla-github-io__rt1_robot_coke_upright_eeae86.mp4",
    "originals/val/interactive-examples__flower_bd9105.mp4",
    "originals/val/InternVideo__test_ef46c7.mp4",
)
FOOTAGE = "originals/val/interactive-examples__flower_bd9105.mp4"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Medians over the rounds; ratios are medians of the ratios within a round."""

    file: str
    size: str
    num_frames: int
    decode_ms: float
    windows_ms: float
    process_ms: float
    windows_ratio: float
    process_ratio: float
    window_ms: float


def main() -> None:
    """Time, print, and write down."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = arguments.files or [
            make_1080p(SHARED / FOOTAGE, Path(folder) / "synthetic_1080p.mp4"),
            *(SHARED / name for name in FILES),
        ]
        with DecoderProcess() as decoder, FFmpegLog() as log:
            rows = [measure(file, decoder, log, rounds=arguments.rounds) for file in files]
    header = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "av": av.__version__,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    print_table(header, rows)
    if arguments.json:
        document = {**header, "rows": [asdict(row) for row in rows]}
        arguments.json.write_text(json.dumps(document, indent=1))


def make_1080p(source: Path, target: Path, num_frames: int = 132) -> Path:
    """Real footage, scaled up, with the grain of a camera, as H.264 of 8 Mbit/s.

    8 Mbit/s is what 1080p is usually uploaded with. Without grain the encoder has nothing to spend
    them on, and decoding costs a third of what it costs for real 1080p.
    """
    random = np.random.default_rng(0)
    grain = random.normal(0, 4, (8, 1080 + 64, 1920 + 64)).round().astype(np.int16)
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = writer.add_stream("libx264", rate=30, options={"b": "8M", "preset": "medium"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        for index, frame in enumerate(reader.decode(video=0)):
            if index == num_frames:
                break
            image = frame.reformat(1920, 1080, "yuv420p", interpolation="LANCZOS").to_ndarray()
            y, x = random.integers(0, 64, 2)
            luma = image[:1080] + grain[index % 8, y : y + 1080, x : x + 1920]
            image[:1080] = luma.clip(16, 235)
            writer.mux(stream.encode(av.VideoFrame.from_ndarray(image, "yuv420p")))
        writer.mux(stream.encode(None))
    return target


def measure(file: Path, decoder: DecoderProcess, log: FFmpegLog, *, rounds: int) -> Row:
    """Time one file."""
    request = DecodeRequest(
        url=str(file.resolve()),
        storage_options={},
        size=None,
        window=WindowConfig(),
        space=SpaceConfig(),
        limits=DecodeLimits(),
    )
    times: list[tuple[float, float, float]] = []
    num_frames = num_windows = 0
    for round_index in range(rounds + 1):
        decode_s = cpu_s(lambda: decode_only(file))
        windows_s = cpu_s(lambda: exhaust(VideoDecoding(request, log=log).windows()))
        process_s = cpu_s(lambda: exhaust(decoder.windows(request)), decoder)
        num_frames = decoder.summary.num_frames_decoded
        num_windows = decoder.summary.num_windows
        if round_index:  # the first one warms caches
            times.append((decode_s, windows_s, process_s))
    facts = decoder.facts
    assert facts is not None
    decode_s, windows_s, process_s = (
        statistics.median(column) for column in zip(*times, strict=True)
    )
    return Row(
        file=file.name,
        size=f"{facts.source_width}x{facts.source_height} {facts.codec}",
        num_frames=num_frames,
        decode_ms=decode_s / num_frames * 1000,
        windows_ms=windows_s / num_frames * 1000,
        process_ms=process_s / num_frames * 1000,
        windows_ratio=statistics.median(b / a for a, b, _ in times),
        process_ratio=statistics.median(c / b for _, b, c in times),
        window_ms=windows_s / num_windows * 1000,
    )


def cpu_s(action: Callable[[], None], decoder: DecoderProcess | None = None) -> float:
    """CPU seconds of this process, and of the decoding process if there is one."""
    before = time.process_time() + child_cpu_s(decoder)
    action()
    return time.process_time() + child_cpu_s(decoder) - before


def child_cpu_s(decoder: DecoderProcess | None) -> float:
    """User and system time of the decoding process; its start counts once, in the warm-up."""
    if decoder is None or decoder.pid is None:
        return 0.0
    fields = Path(f"/proc/{decoder.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def decode_only(file: Path) -> None:
    """The floor: PyAV on one thread."""
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.thread_type = "NONE"
        for _ in container.decode(stream):
            pass


def exhaust(windows: Iterable[object]) -> None:
    """Throw all windows away."""
    for _ in windows:
        pass


def print_table(header: dict[str, str], rows: list[Row]) -> None:
    """Markdown on stdout."""
    print(", ".join(f"{key} {value}" for key, value in header.items()))
    print("| file | source | frames | decode | windows | ratio | process | ratio | ms/window |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.file[:40]} | {row.size} | {row.num_frames} | {row.decode_ms:.2f} "
            f"| {row.windows_ms:.2f} | {row.windows_ratio:.2f} | {row.process_ms:.2f} "
            f"| {row.process_ratio:.2f} | {row.window_ms:.0f} |"
        )


if __name__ == "__main__":
    main()
