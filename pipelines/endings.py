"""Does a file stop before its container says it should? Checks that FFmpeg does not make.

A truncated MP4 makes FFmpeg fail, a truncated Matroska makes it complain. These formats it reads to
the last byte and reports a normal end. A cut that falls exactly between two of their units cannot
be seen here (or by anybody, in a transport stream).
"""

from __future__ import annotations

import os
import struct
from typing import Protocol

__all__ = ["early_ending"]

_PACKET = 188
_SYNC = 0x47
_OGG_TAIL = 1 << 17
"""Bytes: two of the longest possible Ogg pages (27 + 255 + 255 * 255)."""
_FRAGMENT_BOXES = frozenset((b"moof", b"mdat", b"moov", b"sidx", b"styp", b"emsg", b"mfra"))
_MOST_BOXES = 100_000


class _File(Protocol):
    def seek(self, offset: int, whence: int = 0, /) -> int: ...

    def read(self, num_bytes: int, /) -> bytes: ...


def early_ending(
    file: _File, *, container: str, num_packets: int, num_indexed: int, cheap_seeks: bool
) -> str | None:
    """What shows that the file was cut off, or None.

    Args:
        file: Seekable; its position is lost.
        container: FFmpeg's name(s) of the demuxer.
        num_packets: Video packets that were read, to the end.
        num_indexed: Video packets the container's header promises; 0 if it does not say.
        cheap_seeks: Whether a seek costs no request. A fragmented MP4 is walked from box to box,
            which from an object store would read it again.
    """
    size = file.seek(0, os.SEEK_END)
    names = container.split(",")
    if "mpegts" in names:
        return _transport_stream(file, size)
    if "ogg" in names:
        return _ogg(file, size)
    if "avi" in names:
        return _riff(file, size) if num_packets < num_indexed else None
    if "mp4" in names and cheap_seeks:
        return _fragments(file, size)
    return None


def _read(file: _File, offset: int, num_bytes: int) -> bytes:
    file.seek(offset)
    return file.read(num_bytes)


def _transport_stream(file: _File, size: int) -> str | None:
    left = size % _PACKET
    if left == 0 or size < 2 * _PACKET:
        return None
    marks = (_read(file, offset, 1) for offset in (0, _PACKET, size - left - _PACKET, size - left))
    # Not 192- or 204-byte packets, not junk after the end.
    if all(mark == bytes([_SYNC]) for mark in marks):
        return f"ends {left} bytes into a transport packet"
    return None


def _ogg(file: _File, size: int) -> str | None:
    tail = _read(file, max(0, size - _OGG_TAIL), _OGG_TAIL)
    start = tail.rfind(b"OggS")
    if start < 0:
        return None
    header = tail[start : start + 27]
    if len(header) < 27:
        return "ends inside an Ogg page header"
    lacing = tail[start + 27 : start + 27 + header[26]]
    end = start + 27 + header[26] + sum(lacing)
    missing = end - len(tail)
    return f"ends {missing} bytes before its last Ogg page does" if missing > 0 else None


def _riff(file: _File, size: int) -> str | None:
    head = _read(file, 0, 8)
    promised = struct.unpack("<I", head[4:])[0] + 8 if head[:4] == b"RIFF" else 0
    # Recorders that never finish write 0 or -1.
    if size < promised < 0xFFFFFFFF:
        return f"ends {promised - size} bytes before its RIFF chunk does"
    return None


def _fragments(file: _File, size: int) -> str | None:
    """The last top-level box of a *fragmented* file; others are checked by their sample tables."""
    offset, fragmented, boxes = 0, False, 0
    while offset < size and boxes < _MOST_BOXES:
        header = _read(file, offset, 16)
        if len(header) < 8:
            return "ends inside a box header" if fragmented else None
        length, kind = struct.unpack(">I4s", header[:8])
        fragmented = fragmented or kind == b"moof"
        if length == 1 and len(header) == 16:
            length = struct.unpack(">Q", header[8:])[0]
        if length < 8:
            return None
        if offset + length > size and fragmented and kind in _FRAGMENT_BOXES:
            return f"ends {offset + length - size} bytes before its last '{kind.decode()}' box does"
        offset += length
        boxes += 1
    return None
