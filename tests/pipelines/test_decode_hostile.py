"""Inputs that want something: files that name other files, claim sizes, or end before their end."""

from __future__ import annotations

import shutil
import socket
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from decoding_helpers import decode_here, failure_here, request_for
from videos import write_video

from pipelines.decode import DecodeError
from schemas.failures import FailureReason


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    """A video that only an attacker's playlist names."""
    return write_video(tmp_path_factory.mktemp("secret") / "secret.mp4", 12)


def playlist(secret):
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{secret}\n#EXT-X-ENDLIST\n"


def concat(secret):
    return f"ffconcat version 1.0\nfile '{secret}'\n"


def dash(secret):
    return (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
        f'<AdaptationSet><Representation id="1"><BaseURL>file://{secret}</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>"
    )


@pytest.mark.parametrize("body", [playlist, concat, dash])
@pytest.mark.parametrize("name", ["v.mp4", "v.m3u8", "v.ffconcat", "v.mpd"])
def test_a_playlist_reads_no_other_file(tmp_path, secret, body, name):
    path = tmp_path / name
    path.write_text(body(secret))
    assert failure_here(request_for(path)).reason == FailureReason.NOT_A_VIDEO


@pytest.mark.parametrize("name", ["v.mp4", "v.sdp"])
def test_a_session_description_does_not_listen(tmp_path, name):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = tmp_path / name
    path.write_text(
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
        f"m=video {port} RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
    )
    assert failure_here(request_for(path)).reason == FailureReason.NOT_A_VIDEO


@pytest.mark.parametrize("format_", ["tar", "gztar", "zip"])
def test_videos_in_an_archive_are_not_read_and_it_is_said_what_to_do(tmp_path, secret, format_):
    path = shutil.make_archive(str(tmp_path / "videos"), format_, secret.parent)
    failure = failure_here(request_for(path))
    assert failure.reason == FailureReason.NOT_A_VIDEO
    assert failure.detail.endswith("archive; videos in archives are not read: unpack it")


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "JPEG"),
        (b"version https://git-lfs.github.com/spec/v1\n", "LFS"),
        (b"\n<!DOCTYPE html><html>", "HTML"),
        (b"PK\x03\x04", "ZIP"),
    ],
)
def test_other_kinds_of_files_are_called_by_their_name(tmp_path, head, kind):
    path = tmp_path / "v.mp4"
    path.write_bytes(head + bytes(1000))
    failure = failure_here(request_for(path))
    assert failure.reason == FailureReason.NOT_A_VIDEO
    assert kind in failure.detail


def test_real_images_are_not_videos(tmp_path):
    image = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
    for codec, pix_fmt in (("png", "rgb24"), ("mjpeg", "yuvj420p"), ("bmp", "bgr24")):
        context = av.CodecContext.create(codec, "w")
        context.width, context.height, context.pix_fmt = 64, 64, pix_fmt
        context.time_base = Fraction(1, 25)
        frame = image.reformat(format=pix_fmt)
        path = tmp_path / f"image_{codec}.mp4"
        path.write_bytes(b"".join(bytes(p) for p in [*context.encode(frame), *context.encode()]))
        assert failure_here(request_for(path)).reason == FailureReason.NOT_A_VIDEO


def test_an_animated_gif_is_a_video_and_a_still_one_is_not(tmp_path):
    moving = write_video(tmp_path / "a.gif", 3, codec="gif", pix_fmt="rgb8", rate=10)
    still = write_video(tmp_path / "b.gif", 1, codec="gif", pix_fmt="rgb8", rate=10)
    assert len(decode_here(request_for(moving))[0]) == 1
    assert failure_here(request_for(still)).reason == FailureReason.NOT_A_VIDEO


def test_an_animated_png_is_a_video(tmp_path):
    path = write_video(tmp_path / "a.apng", 3, codec="apng", pix_fmt="rgb24", rate=10)
    assert len(decode_here(request_for(path))[0]) == 1


def test_a_picture_larger_than_the_limit_is_too_large(tmp_path):
    path = write_video(tmp_path / "v.mp4", 3)
    failure = failure_here(request_for(path, limits={"max_pixels": 64 * 64 - 1}))
    assert failure.reason == FailureReason.TOO_LARGE
    assert len(decode_here(request_for(path, limits={"max_pixels": 64 * 64}))[0]) == 1


def test_a_gif_that_claims_a_huge_screen_is_too_large(tmp_path):
    header = b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0)
    block = b"\x2c" + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x02\x4c\x01\0\x3b"
    path = tmp_path / "bomb.gif"
    path.write_bytes(header + block)
    assert failure_here(request_for(path)).reason == FailureReason.TOO_LARGE


def test_too_many_frames_or_bytes_are_too_large(tmp_path):
    path = write_video(tmp_path / "v.mp4", 20)
    failure = failure_here(request_for(path, limits={"max_frames": 19}))
    assert (failure.reason, failure.num_frames) == (FailureReason.TOO_LARGE, 19)
    failure = failure_here(request_for(path, limits={"max_bytes": 100}))
    assert failure.reason == FailureReason.TOO_LARGE
    # A gap in the timeline cannot be blown up into frames either.
    failure = failure_here(request_for(path, fps=1000, limits={"max_frames": 100}))
    assert failure.reason == FailureReason.TOO_LARGE


def test_paths_that_are_no_files_have_a_reason(tmp_path):
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nowhere")
    (tmp_path / "empty.mp4").touch()
    reasons = {
        name: failure_here(request_for(tmp_path / f"{name}.mp4")).reason
        for name in ("folder", "loop", "dangling", "empty", "missing")
    }
    assert reasons == {
        "folder": FailureReason.NOT_A_VIDEO,
        "loop": FailureReason.NOT_FOUND,
        "dangling": FailureReason.NOT_FOUND,
        "empty": FailureReason.EMPTY_FILE,
        "missing": FailureReason.NOT_FOUND,
    }


def test_a_file_of_another_size_than_planned_has_changed(tmp_path):
    path = write_video(tmp_path / "v.mp4", 3)
    failure = failure_here(request_for(path, size=path.stat().st_size + 1))
    assert failure.reason == FailureReason.SOURCE_CHANGED


CUT = [
    ("libx264", "mp4", {"movflags": "faststart"}),
    ("libx264", "mp4", {"movflags": "frag_keyframe+empty_moov"}),
    ("libx264", "mp4", {}),
    ("libx264", "mkv", {}),
    ("libx264", "flv", {}),
    ("libx264", "h264", {}),
    ("mpeg4", "avi", {}),
    ("mpeg2video", "ts", {}),
    ("libvpx", "ogv", {}),
    ("gif", "gif", {}),
]


@pytest.mark.parametrize(("codec", "extension", "options"), CUT)
def test_a_file_that_was_cut_off_is_truncated(tmp_path, codec, extension, options):
    noise = np.random.default_rng(0).integers(0, 256, (24, 64, 64, 3), np.uint8)
    pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
    whole = write_video(
        tmp_path / f"whole.{extension}",
        list(noise),
        codec=codec,
        pix_fmt=pix_fmt,
        rate=10,
        codec_options={"crf": "20"} if codec == "libvpx" else {},
        container_options=options,
    )
    data = whole.read_bytes()
    assert len(decode_here(request_for(whole))[0]) == 3
    for share in (0.6, 0.9):
        part = tmp_path / f"part.{extension}"
        # An odd length: not at the border of two transport packets.
        part.write_bytes(data[: int(len(data) * share) // 188 * 188 + 77])
        assert failure_here(request_for(part)).reason == FailureReason.TRUNCATED


@pytest.mark.parametrize("extension", ["mp4", "mkv", "avi", "flv"])
def test_zeros_in_the_middle_are_damage_that_spares_no_window(tmp_path, extension):
    noise = np.random.default_rng(0).integers(0, 256, (24, 64, 64, 3), np.uint8)
    codec = "mpeg4" if extension == "avi" else "libx264"
    path = write_video(tmp_path / f"v.{extension}", list(noise), codec=codec)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000)
    path.write_bytes(data)
    failure = failure_here(request_for(path))
    assert failure.reason in (FailureReason.CORRUPT_STREAM, FailureReason.CORRUPT_CONTAINER)


def test_a_recording_that_starts_in_the_middle_loses_only_what_no_decoder_can_show(tmp_path):
    options = {"g": "10", "keyint_min": "10", "sc_threshold": "0"}
    path = write_video(tmp_path / "v.ts", 30, codec_options=options)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        starts = [packet.pos for packet in container.demux(stream) if packet.pos is not None]
    data = path.read_bytes()
    path.write_bytes(data[: 3 * 188] + data[starts[4] :])
    windows, decoding = decode_here(request_for(path))
    assert decoding.summary.num_frames_decoded == 20
    assert len(windows) == 3


def test_random_damage_always_ends_in_windows_or_a_reason(tmp_path):
    data = write_video(tmp_path / "v.mp4", 12).read_bytes()
    random = np.random.default_rng(1)
    path = tmp_path / "damaged.mp4"
    internal = []
    for _ in range(60):
        damaged = bytearray(data)
        start = int(random.integers(len(data)))
        length = int(random.integers(1, 200))
        damaged[start : start + length] = random.bytes(length)
        path.write_bytes(damaged)
        try:
            decode_here(request_for(path))
        except DecodeError as error:
            if error.failure.reason == FailureReason.INTERNAL:
                internal.append((start, length, error))
    assert internal == []
