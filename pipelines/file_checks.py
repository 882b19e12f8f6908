"""What must hold of one data file: its bytes against the manifest, its rows against their rules."""

from __future__ import annotations

import hashlib
import itertools
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.row_checks import compare_rows, row_faults
from pipelines.sinks.webdataset import read_samples
from schemas.dealing import Rule
from schemas.info import CorpusInfo, TokenizerInfo
from schemas.manifest import DataFile
from schemas.tables import read_parquet
from schemas.tokens import TOKEN_SCHEMA, table_to_rows
from schemas.versions import FormatError

__all__ = ["CheckedFile", "check_file", "compare_files", "same_rows"]

_FAULTS_PER_FILE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedFile:
    """A data file that was read.

    Attributes:
        file: Its entry in the manifest.
        rows: Its rows; None if it cannot be read.
        faults: Sentences about what is wrong with it, at most a few.
    """

    file: DataFile
    rows: list[dict[str, Any]] | None
    faults: tuple[str, ...]


def check_file(file: DataFile, data: bytes, info: CorpusInfo | None) -> CheckedFile:
    """Compare the bytes of a data file with its entry, and its rows with their rules.

    Args:
        file: Its entry in the manifest.
        data: The whole file.
        info: Of the corpus; None skips what only it can tell.
    """
    faults: list[str] = []
    if len(data) != file.bytes:
        faults.append(f"has {len(data)} bytes, the manifest says {file.bytes}")
    elif hashlib.sha256(data).hexdigest() != file.sha256:
        faults.append("has another SHA-256 than in the manifest")
    try:
        if file.format == "webdataset":
            rows = list(read_samples(data))
        else:
            rows, more = _parquet_rows(data, info.tokenizer if info else None)
            faults += more
    except FormatError as error:
        return CheckedFile(file=file, rows=None, faults=(*faults, str(error)))
    faults += _against_manifest(file, rows)
    rule = None if info is None else _rule(info, file.shard)
    found = [
        f"clip {row.get('clip_id')}: {what}" for row in rows for what in row_faults(row, info, rule)
    ]
    return CheckedFile(file=file, rows=rows, faults=(*faults, *_first(found)))


def _rule(info: CorpusInfo, shard: int) -> Rule:
    """By which the windows of a shard got their tokens: a grown corpus has several."""
    grown = [part.routing for part in info.generations if part.first_shard <= shard]
    return grown[-1] if grown else info.routing


def _parquet_rows(
    data: bytes, tokenizer: TokenizerInfo | None
) -> tuple[list[dict[str, Any]], list[str]]:
    table = read_parquet(data, schema=TOKEN_SCHEMA, what="token file")
    faults: list[str] = []
    if table.column_names[: len(TOKEN_SCHEMA)] != TOKEN_SCHEMA.names:
        faults.append("has its columns in another order")
    metadata: dict[bytes, bytes] = table.schema.metadata or {}
    found = metadata.get(b"tokenizer", b"").decode("utf-8", "replace")
    if tokenizer is not None and found != tokenizer.fingerprint:
        faults.append(f"is by tokenizer {found!r}, its metadata says")
    return table_to_rows(table), faults


def _against_manifest(file: DataFile, rows: Sequence[dict[str, Any]]) -> list[str]:
    clips = [str(row.get("clip_id")) for row in rows]
    found = {
        "clips": len(rows),
        "tokens": sum(row.get("num_tokens") or 0 for row in rows),
        "min_clip_id": min(clips, default=""),
        "max_clip_id": max(clips, default=""),
    }
    faults = [
        f"has {name} {value}, the manifest says {getattr(file, name)}"
        for name, value in found.items()
        if value != getattr(file, name)
    ]
    if any(after <= before for before, after in itertools.pairwise(clips)):
        faults.append("is not in order of clip_id, or holds one twice")
    return faults


def compare_files(first: CheckedFile, second: CheckedFile) -> tuple[str, ...]:
    """What the second file says otherwise than the first; both should hold the same rows."""
    if first.rows is None or second.rows is None:
        return ()
    samples = {row["clip_id"]: row for row in second.rows}
    if {row["clip_id"] for row in first.rows} != set(samples):
        return (f"holds other clips than {first.file.path}",)
    found = [
        f"clip {row['clip_id']}: differs from {first.file.path} in {', '.join(names)}"
        for row in first.rows
        if (names := compare_rows(row, samples[row["clip_id"]]))
    ]
    return tuple(_first(found))


def _first(faults: list[str]) -> list[str]:
    more = len(faults) - _FAULTS_PER_FILE
    return faults[:_FAULTS_PER_FILE] + ([f"and {more} more faults in its rows"] if more > 0 else [])


def same_rows(files: Iterable[DataFile]) -> Iterator[list[DataFile]]:
    """Groups of files that differ in folder and suffix alone, Parquet first."""
    groups: dict[str, list[DataFile]] = {}
    for file in files:
        stem = posixpath.splitext(posixpath.basename(file.path))[0]
        groups.setdefault(stem, []).append(file)
    for stem in sorted(groups):
        yield sorted(groups[stem], key=lambda file: file.format)
