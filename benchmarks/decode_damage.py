"""How much random damage goes unnoticed, and what the rest is called.

    python benchmarks/decode_damage.py [--changes 60] [--seed 1]

Changes good files at random (zeros, noise, a flipped bit, a piece cut out or doubled, an early end)
and decodes them. Prints the outcomes; "unnoticed" means: all windows were given out, and some pixel
differs from the undamaged file's.
"""

from __future__ import annotations

import argparse
import os
import random
import tarfile
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from pipelines.config import DecodeLimits, SpaceConfig, WindowConfig
from pipelines.decode import DecodedWindow, DecodeError, DecodeRequest, DecoderProcess

SHARED = Path(os.environ.get("INFOTOK_SHARED", Path(__file__).parents[2] / "shared")) / "data"
FAULTS = (
    "base_faststart.mp4",
    "good_fragmented.mp4",
    "no_duration.mkv",
    "vp9.webm",
    "no_duration.flv",
    "interlaced_mpeg2.ts",
    "pts_offset_100000s.ts",
    "mjpeg.avi",
    "elementary_mpeg1.mpg",
    "raw_annexb.h264",
    "av1_10bit.mkv",
    "hevc_10bit.mp4",
    "small_good.gif",
    "prores_422_10bit.mov",
    "ffv1_lossless.mkv",
)
ORIGINALS = (
    "web-platform-tests__movie_5_e8990d.ogv",
    "torchcodec__testsrc2_odd_width_mpeg2_5c96d8.mp4",
    "web-platform-tests__red-green.webmvp8_fde59a.webm",
)


def main() -> None:
    """Change, decode, count."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--changes", type=int, default=60, help="per file")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    source = random.Random(arguments.seed)
    outcomes: Counter[str] = Counter()
    unnoticed: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, DecoderProcess() as decoder:
        with tarfile.open(SHARED / "faults.tar") as archive:
            for name in FAULTS:
                archive.extract(f"faults/{name}", folder, filter="data")
        files = [Path(folder) / "faults" / name for name in FAULTS]
        files += [SHARED / "originals" / "formats" / name for name in ORIGINALS]
        damaged = Path(folder) / "damaged"
        for file in files:
            data, good = file.read_bytes(), decode(file, decoder)
            for _ in range(arguments.changes):
                damaged.write_bytes(change(data, source))
                outcome = judge(damaged, good, decoder)
                outcomes[outcome] += 1
                unnoticed[file.suffix] += outcome == "unnoticed"
    for outcome, number in outcomes.most_common():
        print(f"{outcome:20} {number}")
    print("unnoticed by extension:", dict(unnoticed.most_common()))


def judge(damaged: Path, good: list[DecodedWindow], decoder: DecoderProcess) -> str:
    """The reason, or what was given out."""
    try:
        windows = decode(damaged, decoder)
    except DecodeError as error:
        return error.failure.reason.value
    same = len(windows) == len(good) and all(
        np.array_equal(a.frames_THWC, b.frames_THWC) for a, b in zip(windows, good, strict=True)
    )
    return "same pixels" if same else "unnoticed"


def decode(file: Path, decoder: DecoderProcess) -> list[DecodedWindow]:
    """All windows, small."""
    request = DecodeRequest(
        url=str(file),
        storage_options={},
        size=None,
        window=WindowConfig(),
        space=SpaceConfig(size=32),
        limits=DecodeLimits(stall_s=10),
    )
    return list(decoder.windows(request))


def change(data: bytes, source: random.Random) -> bytes:
    """One random change."""
    changed = bytearray(data)
    start, length = source.randrange(len(data)), source.choice([1, 16, 256, 2000])
    piece = slice(start, start + length)
    kind = source.choice(["zeros", "noise", "flip", "cut", "double", "end"])
    if kind == "zeros":
        changed[piece] = bytes(len(changed[piece]))
    elif kind == "noise":
        changed[piece] = source.randbytes(len(changed[piece]))
    elif kind == "flip":
        changed[start] ^= 1 << source.randrange(8)
    elif kind == "cut":
        del changed[piece]
    elif kind == "double":
        changed[start:start] = changed[piece]
    else:
        del changed[start:]
    return bytes(changed)


if __name__ == "__main__":
    main()
