"""Peak memory of decoding a long video to its end: it must not grow with the length.

    python benchmarks/decode_memory.py [--json decode_memory.json] [FILE]

Prints the peak resident memory of this process (the receiver) and of the decoding process after the
first windows and at the end. Without FILE it unpacks the 20-minute video of ../shared (72,000
frames, 2,182 windows).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import tarfile
import tempfile
import time
from pathlib import Path

from pipelines.config import DecodeLimits, SpaceConfig, WindowConfig
from pipelines.decode import DecodeRequest, DecoderProcess

SHARED = Path(os.environ.get("INFOTOK_SHARED", Path(__file__).parents[2] / "shared")) / "data"
LONG = "faults/long_20min_72000_frames.mp4"
EARLY_WINDOWS = 50


def main() -> None:
    """Measure, print, and write down."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = arguments.file or unpacked(Path(folder))
        document = measure(file)
    for key, value in document.items():
        print(f"{key}: {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1))


def unpacked(folder: Path) -> Path:
    """The long video, out of its archive."""
    with tarfile.open(SHARED / "faults.tar") as archive:
        archive.extract(LONG, folder, filter="data")
    return folder / LONG


def measure(file: Path) -> dict[str, object]:
    """Decode to the end; peaks in MiB."""
    request = DecodeRequest(
        url=str(file.resolve()),
        storage_options={},
        size=None,
        window=WindowConfig(),
        space=SpaceConfig(),
        limits=DecodeLimits(),
    )
    early: dict[str, float] = {}
    began = time.monotonic()
    with DecoderProcess() as decoder:
        for window in decoder.windows(request):
            if window.span.window_index == EARLY_WINDOWS:
                early = {"receiver": peak_mib(os.getpid()), "decoder": peak_mib(decoder.pid)}
        late = {"receiver": peak_mib(os.getpid()), "decoder": peak_mib(decoder.pid)}
        summary = decoder.summary
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "file": file.name,
        "frames": summary.num_frames_decoded,
        "windows": summary.num_windows,
        "wall_s": round(time.monotonic() - began, 1),
        f"peak_mib_after_{EARLY_WINDOWS}_windows": early,
        "peak_mib_at_the_end": late,
    }


def peak_mib(pid: int | None) -> float:
    """Peak resident memory; counts the shared frame memory in both processes."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) / 1024, 1)


if __name__ == "__main__":
    main()
