"""Real videos of three sizes for `pipeline_gpu.py`: FOLDER/256p, FOLDER/720p, FOLDER/1080p.

    python benchmarks/source_classes.py FOLDER [--small-mb 6]

H.264 of ../shared ($INFOTOK_SHARED), by its manifest: clips that were never trained on, of 256
lines, and originals of 700 to 800 and of 1080 lines; three seconds and 20 frames per second or
more, nothing synthetic. There is one such original of 1080 lines, of 2.3 Mbit/s; a second one is
real footage scaled up, with grain, at the 8 Mbit/s that are usual (`decode.make_1080p`).
"""

from __future__ import annotations

import argparse
import csv
import shutil
from collections.abc import Iterator
from pathlib import Path

from decode import FOOTAGE, SHARED, make_1080p

_LINES = {"256p": range(256, 257), "720p": range(700, 801), "1080p": range(1080, 1081)}
_LEAST_S, _LEAST_FPS = 3.0, 20.0


def main() -> None:
    """Copy and make them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--small-mb", type=float, default=6.0, help="of the smallest class, at most"
    )
    arguments = parser.parse_args()
    for name, lines in _LINES.items():
        folder = arguments.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        left = arguments.small_mb * 1e6
        for file in _videos(lines):
            left -= file.stat().st_size
            if left >= 0 or name != "256p":
                shutil.copyfile(file, folder / file.name)
    make_1080p(SHARED / FOOTAGE, arguments.folder / "1080p" / "scaled_1080p.mp4")


def _videos(lines: range) -> Iterator[Path]:
    with (SHARED / "manifest.csv").open() as file:
        for row in csv.DictReader(file):
            if row["codec"] != "h264" or row["pix_fmt"] not in {"yuv420p", "yuvj420p"}:
                continue
            if row["generated"] == "True" or not all(row[name] for name in ("width", "fps")):
                continue
            if float(row["seconds"]) < _LEAST_S or float(row["fps"]) < _LEAST_FPS:
                continue
            clip = row["kind"] == "clips256"
            wanted = row["split"] == "val" if clip else lines.start > 256
            if wanted and min(int(row["width"]), int(row["height"])) in lines:
                yield SHARED / row["file"]


if __name__ == "__main__":
    main()
