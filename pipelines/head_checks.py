"""What must hold of the documents around the data files: each against itself and its neighbours."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from schemas.failures import FailureStage
from schemas.ids import video_id
from schemas.info import CorpusInfo
from schemas.layout import data_path
from schemas.manifest import DataFile, Totals

__all__ = [
    "config_faults",
    "derived_faults",
    "manifest_faults",
    "quarantine_faults",
    "totals_faults",
]

_PART = re.compile(r"-(\d+)\.\w+$")


def manifest_faults(files: Sequence[DataFile], info: CorpusInfo | None) -> Iterator[str]:
    """What is wrong with the list of data files, apart from the files themselves.

    Args:
        files: As the manifest has them.
        info: Of the corpus; None skips what only it can tell.
    """
    paths = [file.path for file in files]
    if len(set(paths)) != len(paths):
        yield "lists a path twice"
    elif paths != sorted(paths):
        yield "is not in order of the path"
    if info is None:
        return
    for file in files:
        part = _PART.search(file.path)
        number = int(part[1]) if part else 0
        expected = data_path(file.format, split=info.split, shard=file.shard, part=number)
        if file.path != expected:
            yield f"lists {file.path} as {file.format} of shard {file.shard}: {expected}"
    found = {file.format for file in files}
    if files and found != set(info.formats):
        yield f"lists {', '.join(sorted(found))}, meta/info.json says {', '.join(info.formats)}"


def derived_faults(stored: bytes, again: bytes, *, name: str) -> Iterator[str]:
    """Numbers of a document that follow from its others, and do not.

    Args:
        stored: The document as it is.
        again: The same, written once more from what was read of it.
        name: Its object of derived numbers; what it lacks of them is no fault.
    """
    told, found = json.loads(stored).get(name, {}), json.loads(again)[name]
    if not isinstance(told, dict):
        yield f"has no object {name!r}"
        return
    for key, value in found.items():
        if told.get(key, value) != value:
            yield f"says {name}.{key} {told[key]}, the rest of it {value}"


def totals_faults(
    info: CorpusInfo, totals: Totals, num_files: int, num_bytes: int
) -> Iterator[str]:
    """Where the head counts otherwise than its data files were counted again."""
    told = {**info.totals.model_dump(), "files": info.files, "num_bytes": info.num_bytes}
    found = {**totals.model_dump(), "files": num_files, "num_bytes": num_bytes}
    for name, value in found.items():
        if told[name] == value:
            continue
        if isinstance(value, tuple):
            yield f"says another {name} than the data files"
        else:
            yield f"says {name} {told[name]}, the data files say {value}"


def quarantine_faults(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What is wrong with the rows of the quarantine, apart from their reasons."""
    videos = [row["video_id"] for row in rows]
    if len(set(videos)) != len(videos):
        yield "names a video twice"
    elif any(after <= before for before, after in itertools.pairwise(videos)):
        yield "is not in order of video_id"
    stages = set(FailureStage)
    for row in rows:
        if row["video_id"] != video_id(row["uri"]):
            yield f"video {row['video_id']}: is not the id of {row['uri']!r}"
        if row["stage"] not in stages:
            yield f"video {row['video_id']}: has stage {row['stage']!r}"
        if row["attempts"] < 1 or min(row["num_frames"], row["windows"]) < 0:
            yield (
                f"video {row['video_id']}: {row['attempts']} attempts, {row['num_frames']} frames, "
                f"{row['windows']} windows"
            )


def config_faults(stored: bytes, info: CorpusInfo) -> Iterator[str]:
    """Where ``meta/config.json`` speaks of another corpus than ``meta/info.json``.

    Of a corpus that has grown it tells how its first generation was made.
    """
    try:
        document: Any = json.loads(stored)
        key, made_from = document["tokens_key"], dict(document.get("made_from") or {})
        rule = dict(made_from.get("rule") or {})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        yield f"does not say which corpus it is of: {error!r}"
        return
    if info.generations:
        return
    if key != info.tokens_key:
        yield f"is of tokens_key {key}, the corpus of {info.tokens_key}"
    pairs = {"plan": info.plan_id, "statistics": info.statistics_digest}
    for name, value in pairs.items():
        if made_from.get(name, value) != value:
            yield f"was made from {name} {made_from[name]}, the corpus from {value}"
    for name, value in info.routing.model_dump(mode="json").items():
        if rule.get(name, value) != value:
            yield f"was made by a rule of {name} {rule[name]}, the corpus by {value}"
