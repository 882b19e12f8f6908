"""Where things lie below the root of a corpus."""

from __future__ import annotations

__all__ = [
    "CARD_PATH",
    "CONFIG_PATH",
    "DATA_FOLDERS",
    "INFO_PATH",
    "MANIFEST_PATH",
    "QUARANTINE_PATH",
    "RECONSTRUCTION_PATH",
    "REPORT_PATH",
    "STATISTICS_PATH",
    "data_path",
]

CARD_PATH = "README.md"
REPORT_PATH = "report.html"
INFO_PATH = "meta/info.json"
CONFIG_PATH = "meta/config.json"
RECONSTRUCTION_PATH = "meta/reconstruction.json"
"""Only in a corpus of which a sample was decoded."""
STATISTICS_PATH = "meta/statistics.json"
MANIFEST_PATH = "meta/manifest.parquet"
"""The corpus exists when this does: it is written last."""
QUARANTINE_PATH = "quarantine/quarantine.parquet"

DATA_FOLDERS = {"parquet": ("data", ".parquet"), "webdataset": ("wds", ".tar")}
"""Folder and suffix of the data files of a format."""


def data_path(format_name: str, *, split: str, shard: int, part: int) -> str:
    """Name of a data file; equal in both formats but for folder and suffix.

    Raises:
        ValueError: If there is no such format.
    """
    if format_name not in DATA_FOLDERS:
        raise ValueError(f"format must be one of {sorted(DATA_FOLDERS)}, not {format_name!r}")
    folder, suffix = DATA_FOLDERS[format_name]
    return f"{folder}/{split}-{shard:06d}-{part:02d}{suffix}"
