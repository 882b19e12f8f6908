"""The index by which Megatron-Energon opens ``wds/`` without its ``prepare`` step.

Layout of Energon 7: ``.nv-meta/{.info.json, split.yaml, dataset.yaml}`` beside the tars, and for
each tar a ``.tar.idx``: the offset of every sample's first header, and of the end, each as a
little-endian uint64. ``index.sqlite`` is left out: only joins and look-ups by key need it, it holds
a row per sample part of the whole corpus, and ``energon prepare`` can add it at any time.
"""

from __future__ import annotations

import io
import posixpath
import struct
import tarfile
from collections.abc import Iterable

from schemas.documents import canonical_json
from schemas.manifest import DataFile
from schemas.versions import FormatError

__all__ = ["INDEX_SUFFIX", "energon_files", "energon_tar_index"]

INDEX_SUFFIX = ".idx"
"""Appended to the name of a tar."""
_FOLDER = ".nv-meta"
# Crude samples: dicts of decoded members, made into anything by a cooker of the trainer.
_DATASET = "__module__: megatron.energon\n__class__: CrudeWebdataset\n"


def energon_tar_index(data: bytes) -> bytes:
    """The ``.tar.idx`` of a tar of `webdataset.tar_bytes`; stored as ``{tar name}.idx``.

    Raises:
        FormatError: If the tar is damaged.
    """
    offsets: list[int] = []
    previous = None
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                key = member.name.partition(".")[0]
                if key != previous:
                    offsets.append(member.offset)
                previous = key
            offsets.append(tar.offset)
    except tarfile.TarError as error:
        raise FormatError(f"tar cannot be read ({len(data)} bytes): {error}") from error
    return struct.pack(f"<{len(offsets)}Q", *offsets)


def energon_files(files: Iterable[DataFile]) -> list[tuple[str, bytes]]:
    """The files of ``.nv-meta``: (path relative to the corpus root, bytes).

    Args:
        files: Of the manifest; only those of format ``webdataset`` enter, in order of their path.
            The split of a tar is its name without the numbers.

    Returns:
        Nothing for a corpus without tars, which Energon could not open anyway.

    Raises:
        ValueError: If the tars lie in several folders.
    """
    tars = sorted(
        (file for file in files if file.format == "webdataset"), key=lambda file: file.path
    )
    if not tars:
        return []
    folders = {posixpath.dirname(file.path) for file in tars}
    if len(folders) != 1:
        raise ValueError(f"Energon needs all tars in one folder, not in {sorted(folders)}")
    counts = {posixpath.basename(file.path): file.clips for file in tars}
    splits: dict[str, list[str]] = {}
    for name in counts:
        splits.setdefault(name.rsplit("-", 2)[0], []).append(name)
    lines = ["split_parts:"]
    for split, names in splits.items():
        lines += [f"  {split}:", *(f"  - {name}" for name in names)]
    lines += ["exclude: []", ""]
    folder = f"{folders.pop()}/{_FOLDER}"
    info = {"energon_version": None, "shard_counts": counts}
    return [
        (f"{folder}/.info.json", canonical_json(info, indent=2)),
        (f"{folder}/dataset.yaml", _DATASET.encode("ascii")),
        (f"{folder}/split.yaml", "\n".join(lines).encode("ascii")),
    ]
