"""The bytes of a video, wherever they are, as a file object that FFmpeg reads through.

FFmpeg never opens a name: it gets an open file object, a closed list of containers, no protocol,
and a callback that refuses, so that no byte of an input can make it read a local file or listen.
"""

from __future__ import annotations

import io
import stat
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn, cast

import av
import av.error
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from pipelines.config import DecodeLimits
from pipelines.damage import FFmpegLog, VideoError, reason_in_log
from pipelines.store_options import one_request
from schemas.failures import FailureReason, FailureStage

__all__ = [
    "HEAD_BYTES",
    "NamelessFile",
    "VideoBytes",
    "archive_kind",
    "open_bytes",
    "open_container",
    "open_stream",
]

_WHOLE_BYTES = 64 << 20
"""Objects up to this size come in one GET (measured: cheaper than ranged reads of most of it)."""
_READAHEAD_BYTES = 8 << 20
_BUFFER_BYTES = 1 << 20
"""PyAV's default of 32 KiB made 6,126 reads of a 222 MB file; this made 212."""

_CONTAINERS = (
    # With moving pictures.
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,ogg,gif,apng,asf,mxf,nut,rm,wtv,"
    "dv,gxf,ivf,obu,av1,h261,h263,h264,hevc,vvc,evc,m4v,vc1,dirac,cavsvideo,yuv4mpegpipe,nsv,swf,"
    "roq,smk,bink,film_cpk,flic,"
    # Without: recognised so that they are called by their name.
    "wav,mp3,aac,ac3,eac3,flac,aiff,amr,au,caf,w64,wv,tta,ape,dts,truehd"
)
_NO_PROTOCOL = "none"

_NOT_MOVING = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails

_MAGIC = (
    (b"version https://git-lfs.github.com", "a Git LFS pointer"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"BM", "a BMP image"),
    (b"%PDF", "a PDF document"),
    (b"#EXTM3U", "a playlist"),
    (b"ffconcat", "a playlist"),
    (b"v=0", "a session description"),
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<?xml", "an XML document"),
)


_ARCHIVES = (
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b\x08", "a gzip archive"),
    (257, b"ustar", "a tar archive"),
)
HEAD_BYTES = 512
"""So much of a file tells what it is, if it is no video."""

Waiting = Callable[[bool], None]
"""Told True before the store is asked for something, and False when it has answered."""


def _not_told(waiting: bool) -> None:
    del waiting


class NamelessFile:
    """A seekable binary file without a name, from which FFmpeg would guess a container.

    Remembers the error of a failed read: FFmpeg may take it for the end of the file.
    """

    def __init__(self, file: BinaryIO, waiting: Waiting = _not_told) -> None:
        self._file = file
        self._waiting = waiting
        self.seek = file.seek
        self.tell = file.tell
        self.close = file.close
        self.error: Exception | None = None

    def read(self, num_bytes: int = -1) -> bytes:
        """As the file gives it."""
        try:
            with _told(self._waiting):
                return self._file.read(num_bytes)
        except Exception as error:
            self.error = error
            raise


class VideoBytes(NamedTuple):
    """An open input, and whether a seek costs no request."""

    file: NamelessFile
    num_bytes: int
    cheap_seeks: bool


def open_bytes(
    url: str,
    *,
    storage_options: Mapping[str, Any],
    size: int | None,
    max_bytes: int,
    waiting: Waiting = _not_told,
) -> VideoBytes:
    """Open a local path or an object.

    Args:
        url: An absolute path (undecodable bytes as surrogate escapes) or a URL that fsspec knows.
        storage_options: For ``fsspec``; may hold credentials.
        size: Bytes as planned; None if nobody knows.
        max_bytes: Larger objects are refused before they are read.
        waiting: A store may take its time, or never answer; a local file is not waited for.

    Raises:
        VideoError: EMPTY_FILE, TOO_LARGE, or SOURCE_CHANGED if the size is not the planned one.
        OSError: As the store says it; see `damage.failure_of`.
    """
    if url.startswith(("file://", "/")) or "://" not in url:
        path = Path(url.removeprefix("file://"))
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            # Opening a pipe would wait for a writer.
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise VideoError(FailureReason.NOT_A_VIDEO, FailureStage.OPEN, kind)
        _check_size(status.st_size, size, max_bytes)
        return VideoBytes(NamelessFile(path.open("rb")), status.st_size, cheap_seeks=True)
    import fsspec

    with _told(waiting):
        filesystem, path = fsspec.core.url_to_fs(url, **storage_options)
        found = size if size is not None else int(filesystem.info(path)["size"])
        _check_size(found, size, max_bytes)
        if found <= _WHOLE_BYTES:
            data = filesystem.cat_file(path, **one_request(url))
            _check_size(len(data), size, max_bytes)
            return VideoBytes(NamelessFile(io.BytesIO(data)), len(data), cheap_seeks=True)
        file = filesystem.open(path, "rb", block_size=_READAHEAD_BYTES, cache_type="readahead")
    _check_size(int(file.size), size, max_bytes)
    return VideoBytes(NamelessFile(file, waiting), found, cheap_seeks=False)


def open_container(source: VideoBytes, *, max_pixels: int) -> InputContainer:
    """Let FFmpeg recognise and open the container.

    Raises:
        VideoError: NOT_A_VIDEO if the bytes are of a known other kind.
        av.error.FFmpegError: Otherwise; see `damage.failure_of`.
    """
    kind = _other_kind(source.file)
    if kind is not None:
        raise VideoError(FailureReason.NOT_A_VIDEO, FailureStage.OPEN, kind)
    return av.open(
        source.file,
        "r",
        # Reaches the decoders that FFmpeg runs while it looks for the parameters of the streams.
        options={"max_pixels": str(max_pixels), "threads": "1"},
        container_options={
            "format_whitelist": _CONTAINERS,
            "protocol_whitelist": _NO_PROTOCOL,
        },
        buffer_size=_BUFFER_BYTES,
        metadata_errors="replace",
        io_open=_refuse,
    )


def open_stream(container: InputContainer, *, limits: DecodeLimits, log: FFmpegLog) -> VideoStream:
    """Choose the video stream and open its decoder, on one thread; closes the container on failure.

    Raises:
        VideoError: NO_VIDEO_STREAM, UNSUPPORTED_CODEC, or what the log says.
    """
    try:
        stream = _choose(container)
        # PyAV's types do not know that it is missing where FFmpeg has no decoder.
        context = cast("VideoCodecContext | None", stream.codec_context)
        if context is None:
            detail = f"this FFmpeg has no decoder for stream {stream.index}"
            raise VideoError(FailureReason.UNSUPPORTED_CODEC, FailureStage.OPEN, detail)
        for other in container.streams:
            # The demuxer then skips them.
            other.discard = Discard.default if other is stream else Discard.all
        context.thread_count = 1
        context.thread_type = "NONE"
        context.options = {"max_pixels": str(limits.max_pixels)}
        context.open()
    except av.error.FFmpegError as error:
        container.close()
        if isinstance(error, MemoryError):
            raise
        lines = log.drain()
        errors = [line.text for line in lines if line.is_error] or [str(error)]
        said = reason_in_log(lines) or (FailureReason.UNSUPPORTED_CODEC, errors[0])
        raise VideoError(said[0], FailureStage.OPEN, said[1]) from error
    except VideoError:
        container.close()
        raise
    return stream


@contextmanager
def _told(waiting: Waiting) -> Generator[None]:
    waiting(True)
    try:
        yield
    finally:
        waiting(False)


def _check_size(found: int, planned: int | None, max_bytes: int) -> None:
    if planned is not None and found != planned:
        detail = f"planned with {planned} bytes, found {found}"
        raise VideoError(FailureReason.SOURCE_CHANGED, FailureStage.OPEN, detail)
    if found == 0:
        raise VideoError(FailureReason.EMPTY_FILE, FailureStage.OPEN, "0 bytes")
    if found > max_bytes:
        detail = f"{found} bytes, the limit is {max_bytes}"
        raise VideoError(FailureReason.TOO_LARGE, FailureStage.OPEN, detail)


def archive_kind(head: bytes) -> str | None:
    """What archive begins so; None if it is none.

    Args:
        head: The first `HEAD_BYTES` of a file.
    """
    # The length of the first box of a film may read like the start of an archive.
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return None
    found = (kind for at, magic, kind in _ARCHIVES if head.startswith(magic, at))
    return next(found, None)


def _other_kind(file: NamelessFile) -> str | None:
    head = file.read(HEAD_BYTES)
    file.seek(0)
    archive = archive_kind(head)
    if archive is not None:
        return f"{archive}; videos in archives are not read: unpack it"
    # An animated PNG says so in a chunk after the header; FFmpeg's own probe tells the two apart.
    if head.startswith(b"\x89PNG") and b"acTL" in head:
        return None
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((kind for magic, kind in _MAGIC if start.startswith(magic.lower())), None)


def _refuse(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    """FFmpeg asks for a second file: never (a playlist or a reference inside a container)."""
    detail = f"the file refers to another one ({url!r})"
    raise VideoError(FailureReason.NOT_A_VIDEO, FailureStage.OPEN, detail)


def _choose(container: InputContainer) -> VideoStream:
    """The main moving picture: default before others, then most pixels, then the first."""
    streams = [stream for stream in container.streams.video if not stream.disposition & _NOT_MOVING]
    if not streams:
        kinds = ", ".join(stream.type for stream in container.streams) or "nothing"
        detail = f"no moving pictures; {container.format.name} with {kinds}"
        raise VideoError(FailureReason.NO_VIDEO_STREAM, FailureStage.OPEN, detail)

    def rank(stream: VideoStream) -> tuple[bool, int, int]:
        context = cast("VideoCodecContext | None", stream.codec_context)
        num_pixels = context.width * context.height if context is not None else 0
        return bool(stream.disposition & Disposition.default), num_pixels, -stream.index

    return max(streams, key=rank)
