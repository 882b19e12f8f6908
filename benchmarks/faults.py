"""Writes docs/faults.md: what becomes of each damaged, hostile or odd input.

    python benchmarks/faults.py [--output docs/faults.md]

Decodes every file of ../shared/data/faults.tar and ../shared/data/originals through the decoding
process (33 frames a window, default limits, 64 x 64 pixels) and writes one row per file.
"""

from __future__ import annotations

import argparse
import os
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipelines.config import DecodeLimits, SpaceConfig, WindowConfig
from pipelines.decode import DecodeError, DecodeRequest, DecoderProcess
from schemas.ids import quote_path

SHARED = Path(os.environ.get("INFOTOK_SHARED", Path(__file__).parents[2] / "shared")) / "data"

WHY = {
    "anamorphic_sar_16_9.mp4": "pixels of 16:9 are made square",
    "audio_only.mp4": "nothing to see",
    "audio_with_cover_art.m4a": "cover art is not a moving picture",
    "av1_10bit.mkv": "10-bit AV1",
    "base_faststart.mp4": "the undamaged original of the damaged ones",
    "base_good.mp4": "the undamaged original, index at the end",
    "black_static.mp4": "black and still is still a video",
    "bomb_16000x16000_1frame.mp4": "more pixels than `max_pixels`, refused before a frame is made",
    "bomb_16384x16384.png": "an image",
    "bomb_65535x65535.gif": "35 bytes that claim 4 gigapixels",
    "bomb_8192x8192_60frames.mp4": "more pixels than `max_pixels`",
    "container_lies_16384x16384.mp4": "the header lies, the stream decides",
    "corrupt_avcC_extradata.mp4": "the decoder's configuration, in the container, is garbage",
    "corrupt_stsz_count.mp4": "the table of sample sizes is damaged",
    "corrupted_packets_middle.mp4": "damaged pictures would be painted over, so none is kept",
    "dangling_symlink.mp4": "leads nowhere",
    "dir_with_files.mp4": "a folder",
    "elementary_mpeg1.mpg": "starts at 0.54 s; times are those of the source",
    "extreme_aspect_16x1080.mp4": "coded 16 x 1080, shown 16:9",
    "extreme_aspect_1920x16.mp4": "coded 1920 x 16, shown 16:9",
    "ffv1_lossless.mkv": "lossless FFV1",
    "five_frames.mp4": "one padded tail",
    "frames_32.mp4": "one padded tail",
    "frames_33.mp4": "exactly one window",
    "gif_named.mp4": "content decides, not the name",
    "git_lfs_pointer.mp4": "a pointer to a file that was never fetched",
    "good_fragmented.mp4": "fragmented, starts at 0.067 s",
    "good_with_audio.mp4": "audio is skipped",
    "h264_gray.mp4": "gray, full range",
    "h264_yuv422p10.mp4": "4:2:2, 10 bit",
    "h264_yuv444p.mp4": "4:4:4",
    "header_only_32bytes.mp4": "nothing behind the first box",
    "hevc_10bit.mp4": "10-bit HEVC",
    "high_fps_240.mp4": "240 frames per second",
    "html_404_page.mp4": "a web page",
    "interlaced_mpeg2.ts": "interlaced: fields stay woven",
    "long_20min_72000_frames.mp4": "20 minutes, in constant memory",
    "loop_symlink.mp4": "a link to itself",
    "low_fps_1.mp4": "1 frame per second",
    "mjpeg.avi": "Motion JPEG, full range",
    "mp4_named.jpg": "content decides, not the name",
    "negative_cts_offsets.mp4": "negative composition offsets",
    "negative_pts.mkv": "times of 24 frames are missing and follow from the rate",
    "negative_pts.mp4": "an edit list hides the first 45 frames",
    "no_duration.flv": "no duration needed",
    "no_duration.mkv": "no duration needed",
    "no_duration.webm": "no duration needed",
    "odd_101x77_420.webm": "odd sides, 4:2:0",
    "odd_101x77_444.mp4": "odd sides, 4:4:4",
    "one_frame.mp4": "one frame, padded",
    "prores_422_10bit.mov": "ProRes",
    "pts_offset_100000s.ts": "starts at 4,558 s (33-bit clock)",
    "pure_noise.mp4": "noise is content",
    "random_bytes.mp4": "noise is no container",
    "raw_annexb.h264": "no container and no clock: times follow from the stream's own rate",
    "rawvideo_bgr24.avi": "uncompressed RGB",
    "resolution_change_midstream.ts": "joined streams: output size stays, the clock goes on",
    "rotated_180.mp4": "turned",
    "rotated_270.mp4": "turned",
    "rotated_90.mp4": "turned",
    "small_good.gif": "an animated GIF",
    "starts_without_keyframe.ts": "never reaches a keyframe",
    "text_named.mp4": "text",
    "tiny_2x2.mkv": "2 x 2 pixels, scaled up",
    "tiny_2x2.mp4": "2 x 2 pixels, scaled up",
    "truncated_fragmented.mp4": "stops inside a fragment",
    "truncated_midstream_faststart.mp4": "stops inside the data; the index promises more",
    "truncated_moov_missing.mp4": "stops before the index",
    "two_video_streams.mp4": "the default stream, then the largest",
    "very_high_fps_1000.mp4": "1,000 frames per second",
    "vfr_drop.mkv": "variable rate",
    "vfr_jitter_gap.mp4": "variable rate with a gap",
    "vp9.webm": "VP9",
    "vp9_alpha.webm": "alpha is ignored",
    "wav_named.mp4": "audio only",
    "x.mp4": "a folder",
    "zero_byte.mp4": "empty",
    "zeroed_middle.mp4": "a hole in the data",
    "decord__corrupted_5e5bec.mp4": "damaged packets in the middle",
    "io__gs-16b-2c-44100hz_b8b1bd.mp4": "audio only",
    "web-platform-tests__2x2-green_29903c.ogv": "FFmpeg's Theora decoder refuses 2 x 2",
    "web-platform-tests__test_03e625.mp4": "every one of its packets is garbage to FFmpeg",
}
WHY_NAME = "only its name is odd"
HEAD = """# What becomes of damaged, hostile and odd inputs

Made by `python benchmarks/faults.py` from the files of `faults.tar` and `originals/`; do not edit.

A video is tokenised whole or set aside whole. FFmpeg conceals damage: it paints over missing data
with what lies nearby and goes on. So the first decoding error, partly decoded frame, or error line
of the demuxer or decoder after the first keyframe sets the video aside, with the reason a person
would give. The file is then read on for two packets: if it ends there, it was cut off.

What is *not* damage: a header that lies, a missing duration or frame count, a late or negative
start, times that are missing or set back, an edit list that hides frames, a recording that starts
between two keyframes, broken audio.

What cannot be seen: a transport stream (or a raw stream) cut exactly between two packets; a changed
bit that leaves a valid stream of a codec without checksums (most of them). How often that happens
to random changes of good files is measured by `benchmarks/decode_damage.py`: of 1,080 changes 135
(1 in 8) changed pixels unnoticed; no crash, no timeout, no INTERNAL (x86_64, PyAV 18.1, 2026-11).

Alpha is ignored (the stored colour is used), interlaced fields stay woven, HDR is not tone-mapped,
angles other than right ones are rounded, a still GIF is an image. Archives (tars of
WebDataset, ZIP, gzip) are not looked into: NOT_A_VIDEO, with the advice to unpack them; `infotok
doctor INPUT` says so before a run.
"""


class Row(NamedTuple):
    """One file."""

    file: str
    outcome: str
    windows: int
    detail: str


def main() -> None:
    """Decode everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "docs/faults.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, DecoderProcess() as decoder:
        with tarfile.open(SHARED / "faults.tar") as archive:
            # Links that lead nowhere are part of it; nothing of it is executed or followed.
            archive.extractall(folder, filter="fully_trusted")
        faults = list(rows(Path(folder) / "faults", decoder))
        originals = list(rows(SHARED / "originals", decoder))
    arguments.output.write_text(document(faults, originals))


def rows(root: Path, decoder: DecoderProcess) -> Iterator[Row]:
    """One row per file, link or folder that carries a video's name."""
    paths = [*root.rglob("*")] if root.name == "originals" else [*root.iterdir()]
    if root.name == "originals":
        paths = [path for path in paths if path.is_file()]
    for path in sorted(paths, key=lambda path: os.fsencode(path.name)):
        yield decode(path, decoder)


def decode(path: Path, decoder: DecoderProcess) -> Row:
    """Decode one file to its end."""
    request = DecodeRequest(
        url=str(path),
        storage_options={},
        size=None,
        window=WindowConfig(),
        space=SpaceConfig(size=64),
        limits=DecodeLimits(),
    )
    name = quote_path(path.name)
    try:
        for _ in decoder.windows(request):
            pass
    except DecodeError as error:
        detail = error.failure.detail.replace(str(path.parent) + "/", "")
        return Row(name, error.failure.reason.value, 0, detail)
    return Row(name, "tokenised", decoder.summary.num_windows, "; ".join(decoder.summary.notes))


def document(faults: list[Row], originals: list[Row]) -> str:
    """The page."""
    aside = [row for row in originals if row.outcome != "tokenised"]
    parts = [HEAD, "## Faults", "", *counts(faults), "", *table(faults), ""]
    parts += ["## Originals", "", *counts(originals), "", "Those set aside:", "", *table(aside), ""]
    return "\n".join(parts)


def counts(of: list[Row]) -> list[str]:
    """How many of each outcome."""
    found = Counter(row.outcome for row in of)
    listed = ", ".join(f"{outcome} {number}" for outcome, number in found.most_common())
    return [f"{len(of)} files: {listed}."]


def table(of: list[Row]) -> list[str]:
    """Markdown rows."""
    lines = ["| file | outcome | windows | why | in the decoder's words |", "|---|---|---|---|---|"]
    for row in of:
        name = row.file if len(row.file) <= 60 else f"{row.file[:20]}... ({len(row.file)} letters)"
        why = WHY.get(row.file, "a still image" if "still image" in row.detail else WHY_NAME)
        cells = (name, row.outcome, str(row.windows), why, row.detail[:90])
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


if __name__ == "__main__":
    main()
