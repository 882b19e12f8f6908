"""The YAML head of the dataset card, as dataset hubs and `datasets.load_dataset` read it."""

from __future__ import annotations

import json
import re

from schemas.info import CorpusInfo
from schemas.layout import DATA_FOLDERS
from schemas.tokens import TOKEN_SCHEMA

__all__ = ["front_matter", "hub_split"]

# What a hub knows by name; the rest is `other` with a name of its own.
_LICENCES = frozenset(
    (
        *("apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "odbl", "pddl", "unknown", "other"),
        *("cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0"),
        *("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"),
        *("cc-by-nd-4.0", "cc-by-nc-nd-4.0", "cdla-permissive-2.0"),
    )
)
_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B")
# Arrow's names of types, where a hub has another.
_TYPES = {"double": "float64", "float": "float32", "halffloat": "float16"}
_LIST = re.compile(r"list<element: (\w+)(?: not null)?>")


def front_matter(info: CorpusInfo) -> str:
    """Licence, size, which files are the data, and for Parquet the columns and their number."""
    lines = ["---", *_licence(info.licence), "pretty_name: Video tokens"]
    lines += ["tags: [video, tokens, infotok]", f"size_categories: [{_size(info.totals.clips)}]"]
    kind = next((name for name in DATA_FOLDERS if name in info.formats), None)
    if kind is not None and info.totals.clips:
        folder, suffix = DATA_FOLDERS[kind]
        split = hub_split(info)
        lines += [
            "configs:",
            "- config_name: default",
            "  data_files:",
            f"  - split: {json.dumps(split)}",
            f"    path: {json.dumps(f'{folder}/{info.split}-*{suffix}')}",
        ]
        if kind == "parquet":
            lines += _columns(info, split)
    return "\n".join([*lines, "---"])


def hub_split(info: CorpusInfo) -> str:
    """The name of the split on a hub, where it has to be a Python name."""
    return re.sub(r"\W", "_", info.split)


def _licence(licence: str) -> list[str]:
    known = "-".join(licence.lower().split())
    if known in _LICENCES:
        return [f"license: {known}"]
    return ["license: other", f"license_name: {json.dumps(licence)}"]


def _size(clips: int) -> str:
    return next((name for k, name in enumerate(_SIZES) if clips < 1000 * 10**k), "1B<n<10B")


def _columns(info: CorpusInfo, split: str) -> list[str]:
    columns = {field.name: str(field.type) for field in TOKEN_SCHEMA}
    # In order of the file: ours first.
    columns |= info.extra_columns
    lines = ["dataset_info:", "  features:"]
    for name, kind in columns.items():
        element = _LIST.fullmatch(kind)
        # Not `list`, which `datasets` before version 4 does not know.
        key, kind = ("sequence", element[1]) if element else ("dtype", kind)
        lines += [f"  - name: {json.dumps(name)}", f"    {key}: {_TYPES.get(kind, kind)}"]
    lines += ["  splits:", f"  - name: {json.dumps(split)}"]
    # Asked for by name. A hub means the size in memory; what is known is that of the files.
    return [*lines, f"    num_bytes: {info.num_bytes}", f"    num_examples: {info.totals.clips}"]
