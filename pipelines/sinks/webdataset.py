"""Token rows as one plain tar that WebDataset reads without code of ours."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from schemas.versions import FormatError
from schemas.webdataset import member_row, sample_members

__all__ = ["read_samples", "sample_bytes", "tar_bytes", "tar_samples"]


def tar_bytes(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """A tar of the samples, sorted by key: no times, no owners, so equal rows give equal bytes.

    Raises:
        ValueError: If a clip id occurs twice or cannot be a WebDataset key.
    """
    sink = io.BytesIO()
    previous = ""
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for row in sorted(rows, key=lambda row: row["clip_id"]):
            if row["clip_id"] == previous:
                raise ValueError(f"clip_id {previous} occurs twice in one data file")
            previous = row["clip_id"]
            for name, data in sample_members(row):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                member.mode = 0o644
                tar.addfile(member, io.BytesIO(data))
    return sink.getvalue()


def sample_bytes(row: Mapping[str, Any]) -> int:
    """What a row takes in a tar: headers, and parts filled up to whole blocks."""
    block = tarfile.BLOCKSIZE
    return sum(block + -(-len(data) // block) * block for _, data in sample_members(row))


def tar_samples(data: bytes) -> Iterator[tuple[str, int, dict[str, bytes]]]:
    """The samples of a tar: (key, offset of its first header, bytes by part name).

    Neighbouring members with one key are one sample, as WebDataset groups them.

    Raises:
        FormatError: If the tar is damaged, cut off, or holds anything but samples.
    """
    key, offset, parts = "", 0, dict[str, bytes]()
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                name, _, part = member.name.partition(".")
                file = tar.extractfile(member)
                if not part or file is None:
                    raise FormatError(f"tar member {member.name!r} is no part of a sample")
                if name != key:
                    if parts:
                        yield key, offset, parts
                    key, offset, parts = name, member.offset, {}
                parts[part] = file.read()
            # tarfile takes a missing end-of-archive block for an end.
            if not data[tar.offset : tar.offset + tarfile.BLOCKSIZE] == bytes(tarfile.BLOCKSIZE):
                raise FormatError("tar has no end: it is cut off")
    except tarfile.TarError as error:
        raise FormatError(f"tar cannot be read ({len(data)} bytes): {error}") from error
    if parts:
        yield key, offset, parts


def read_samples(data: bytes) -> Iterator[dict[str, Any]]:
    """The rows of a tar of `tar_bytes`; columns that were null are absent.

    Raises:
        FormatError: If the tar or a sample is damaged or of another version.
    """
    for key, _, parts in tar_samples(data):
        row = member_row(parts)
        if row.get("clip_id") != key:
            raise FormatError(f"sample {key!r} says it is {row.get('clip_id')!r}")
        yield row
