"""Reads a whole corpus back and says what is wrong with it: nothing is believed, nothing changed.

One data file is in memory at a time (two, where both formats hold the same rows).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from pipelines.clip_keys import ClipKeys
from pipelines.file_checks import CheckedFile, check_file, compare_files, same_rows
from pipelines.head_checks import (
    config_faults,
    derived_faults,
    manifest_faults,
    quarantine_faults,
    totals_faults,
)
from pipelines.sinks.energon import INDEX_SUFFIX, energon_tar_index
from schemas.dealing import Rule
from schemas.documents import Document
from schemas.info import CorpusInfo
from schemas.layout import (
    CONFIG_PATH,
    DATA_FOLDERS,
    INFO_PATH,
    MANIFEST_PATH,
    QUARANTINE_PATH,
    STATISTICS_PATH,
)
from schemas.manifest import DataFile, Totals, TotalsBuilder, decode_manifest
from schemas.quarantine import decode_quarantine
from schemas.statistics import ElboStatistics
from schemas.versions import FormatError

__all__ = ["Fault", "ReadableStore", "ValidationReport", "validate"]

_RATE_TOLERANCE = 1e-3
"""Promised precision of an exact budget, relative, beside the rounding to whole tokens."""

_ELBO_TOLERANCE = 1e-6
"""Relative: the ``elbo`` column is rounded to float32, the statistics are exact."""

_T = TypeVar("_T")
_D = TypeVar("_D", bound=Document)


class ReadableStore(Protocol):
    """What validation needs of a store; paths are relative to the corpus root."""

    def read(self, path: str) -> bytes:
        """The whole object; FileNotFoundError if there is none."""
        ...

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Objects below a folder: (path, bytes)."""
        ...

    def exists(self, path: str) -> bool:
        """Whether the object is there."""
        ...


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        path: File at fault, relative to the corpus root.
        what: A sentence about it, which may name a clip.
    """

    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationReport:
    """What was found.

    Attributes:
        faults: Empty for a sound corpus; at most a few per file.
        totals: Recounted from the rows.
        num_videos: Distinct videos with rows.
        num_files: Data files that were read.
        num_bytes: Their bytes.
    """

    faults: tuple[Fault, ...]
    totals: Totals
    num_videos: int
    num_files: int
    num_bytes: int

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults

    def summary(self) -> str:
        """One line for people."""
        verdict = "sound" if self.ok else f"{len(self.faults)} faults"
        return (
            f"{verdict}: {self.num_files} files, {self.num_bytes} bytes, {self.num_videos} videos, "
            f"{self.totals.clips} windows, {self.totals.tokens} tokens, "
            f"rate {self.totals.rate:.6f}"
        )


def validate(store: ReadableStore) -> ValidationReport:
    """Check a corpus against its manifest, its head and the rules of its rows.

    Raises:
        OSError: Only if a folder cannot be listed or the scratch disk is full; objects that cannot
            be read are faults.
    """
    with ClipKeys() as keys:
        return _Validation(store, keys).run()


@dataclass(slots=True)
class _Validation:
    store: ReadableStore
    keys: ClipKeys
    faults: list[Fault] = field(default_factory=list[Fault])
    builder: TotalsBuilder = field(default_factory=TotalsBuilder)
    totals: Totals = field(default_factory=Totals)
    information: float = 0.0
    num_files: int = 0
    num_bytes: int = 0

    def run(self) -> ValidationReport:
        info = self._document(INFO_PATH, self._head(INFO_PATH, CorpusInfo, "realised"))
        files = self._document(MANIFEST_PATH, decode_manifest)
        if files is not None:
            self._listing(files)
            self._fault(MANIFEST_PATH, *manifest_faults(files, info))
            for group in same_rows(files):
                self._group(group, info)
            self.totals = self.builder.freeze()
        num_videos = self._accounting(info)
        if info is not None:
            found = totals_faults(info, self.totals, self.num_files, self.num_bytes)
            self._fault(INFO_PATH, *found)
            self._statistics(info)
            if self.store.exists(CONFIG_PATH):
                self._fault(CONFIG_PATH, *config_faults(self._read(CONFIG_PATH) or b"", info))
        return ValidationReport(
            faults=tuple(self.faults),
            totals=self.totals,
            num_videos=num_videos,
            num_files=self.num_files,
            num_bytes=self.num_bytes,
        )

    def _fault(self, path: str, *what: str) -> None:
        self.faults += [Fault(path, sentence) for sentence in what]

    def _read(self, path: str) -> bytes | None:
        try:
            return self.store.read(path)
        except FileNotFoundError:
            self._fault(path, "is missing")
        except OSError as error:
            self._fault(path, f"cannot be read: {error}")
        return None

    def _document(self, path: str, decode: Callable[[bytes], _T]) -> _T | None:
        data = self._read(path)
        try:
            return None if data is None else decode(data)
        except FormatError as error:
            self._fault(path, str(error))
            return None

    def _head(self, path: str, kind: type[_D], derived: str) -> Callable[[bytes], _D]:
        """How to read a document that says some things twice, for those who do not compute."""

        def decode(data: bytes) -> _D:
            document = kind.from_bytes(data)
            self._fault(path, *derived_faults(data, document.to_bytes(), name=derived))
            return document

        return decode

    def _listing(self, files: list[DataFile]) -> None:
        expected = {file.path for file in files}
        for folder, _ in DATA_FOLDERS.values():
            for path, _ in self.store.list(folder):
                # .nv-meta and the like belong to other readers.
                hidden = any(part.startswith(".") for part in path.split("/"))
                if not hidden and path.removesuffix(INDEX_SUFFIX) not in expected:
                    self._fault(path, "is not in the manifest")

    def _group(self, group: list[DataFile], info: CorpusInfo | None) -> None:
        """Files that hold the same rows in different formats, or one file."""
        checked: list[CheckedFile] = []
        for file in group:
            data = self._read(file.path)
            if data is None:
                continue
            self.num_files += 1
            self.num_bytes += len(data)
            checked.append(check_file(file, data, info))
            self._fault(file.path, *checked[-1].faults)
            if file.format == "webdataset" and checked[-1].rows is not None:
                self._tar_index(file.path, data)
        # Each row counts once, also if two formats hold it.
        rows = next((found.rows for found in checked if found.rows is not None), [])
        try:
            for row in rows:
                self.builder.add(row)
                self.information += row["elbo"] * row["grid_t"] * row["grid_h"] * row["grid_w"]
            self.keys.add((row["video_id"], row["window_index"]) for row in rows)
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            self._fault(group[0].path, f"rows cannot be counted: {error!r}")
        if len(checked) == 2:
            self._fault(group[1].path, *compare_files(checked[0], checked[1]))

    def _tar_index(self, path: str, data: bytes) -> None:
        index = path + INDEX_SUFFIX
        if self.store.exists(index) and self._read(index) != energon_tar_index(data):
            self._fault(index, "is not the index of its tar")

    def _accounting(self, info: CorpusInfo | None) -> int:
        rows = self._document(QUARANTINE_PATH, decode_quarantine) or []
        quarantined = {row["video_id"] for row in rows}
        report = self.keys.report(quarantined=quarantined)
        if report.num_repeated:
            some = ", ".join(report.repeated)
            self._fault(MANIFEST_PATH, f"{report.num_repeated} clips are there twice: {some}")
        if report.num_missing:
            some = ", ".join(report.missing)
            self._fault(MANIFEST_PATH, f"{report.num_missing} windows are missing before {some}")
        if report.num_quarantined:
            self._fault(QUARANTINE_PATH, f"{report.num_quarantined} of its videos have rows")
        self._fault(QUARANTINE_PATH, *quarantine_faults(rows))
        if info is not None:
            reasons = dict(Counter(row["reason"] for row in rows))
            if reasons != {reason: count for reason, count in info.reasons.items() if count}:
                self._fault(INFO_PATH, f"reasons are not those of {QUARANTINE_PATH}")
            if report.num_videos != info.videos.committed:
                told = info.videos.committed
                self._fault(INFO_PATH, f"{told} videos committed, {report.num_videos} have rows")
        return report.num_videos

    def _statistics(self, info: CorpusInfo) -> None:
        statistics = None
        if info.statistics_digest is not None or self.store.exists(STATISTICS_PATH):
            decode = self._head(STATISTICS_PATH, ElboStatistics, "summary")
            statistics = self._document(STATISTICS_PATH, decode)
        if statistics is None:
            return
        if statistics.digest != info.statistics_digest:
            self._fault(STATISTICS_PATH, "is not the document that meta/info.json names")
        pairs: list[tuple[str, object, object]] = [
            ("plan_id", statistics.plan_id, info.plan_id),
            ("tokenizer", statistics.tokenizer, info.tokenizer.fingerprint),
        ]
        if not statistics.is_sample:
            pairs.append(("windows", statistics.windows, self.totals.clips))
            pairs.append(("tokens at full rate", statistics.tokens, self.totals.cells))
            self._realised_rates(info)
            self._mean_elbo(statistics)
        for name, told, found in pairs:
            if told != found:
                self._fault(STATISTICS_PATH, f"was measured with {name} {told}, not {found}")

    def _mean_elbo(self, statistics: ElboStatistics) -> None:
        told, cells = statistics.token_weighted_mean, self.totals.cells
        found = self.information / cells if cells else 0.0
        if not math.isclose(told, found, rel_tol=_ELBO_TOLERANCE, abs_tol=1e-9):
            self._fault(STATISTICS_PATH, f"has mean ELBO {told}, its rows have {found}")

    def _realised_rates(self, info: CorpusInfo) -> None:
        if not info.generations:
            self._realised_rate(info.routing, self.totals)
        for generation in info.generations:
            if generation.own_statistics:
                self._realised_rate(generation.routing, generation.totals)

    def _realised_rate(self, rule: Rule, totals: Totals) -> None:
        if not rule.is_exact or not totals.cells:
            return
        rounding = 0.5 * totals.clips / totals.cells
        if abs(totals.rate - rule.target) > _RATE_TOLERANCE * rule.target + rounding:
            told = f"rate {rule.target} was asked for, {totals.rate} is realised"
            self._fault(INFO_PATH, told)
