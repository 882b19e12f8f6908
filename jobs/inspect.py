"""``infotok inspect``: any stored object, any clip, or a whole corpus, as text."""

from __future__ import annotations

import posixpath

import click

from jobs.reading import reading, store_options
from pipelines.config import StorageConfig
from pipelines.corpus_reader import read_manifest
from pipelines.errors import IncompleteError, PipelineError
from pipelines.inspect import describe_object, describe_row, find_clip
from pipelines.reachable import check_reachable
from pipelines.storage import Store
from pipelines.wording import num_bytes_text, rule_text, settings_text
from schemas.info import CorpusInfo
from schemas.layout import INFO_PATH, MANIFEST_PATH, QUARANTINE_PATH, STATISTICS_PATH

__all__ = ["inspect"]

_PLAN_PATH = "plan.parquet"


@click.command()
@click.argument("path")
@click.option("--clip", metavar="CLIP_ID", help="One row of the corpus PATH, with its mask drawn.")
@store_options
def inspect(*, path: str, clip: str | None, storage: StorageConfig) -> None:
    """Show PATH: a corpus, a work folder, or any object of either.

    Objects: data files (.parquet, .tar), manifest, statistics, info, quarantine, plan, receipts,
    units. What one is, is seen from its content.
    """
    store = Store(path, storage)
    with reading(store.url):
        check_reachable(store)
        if clip is not None:
            click.echo(_clip(store, clip))
        elif store.exists(MANIFEST_PATH):
            click.echo(_corpus(store))
        elif store.exists(_PLAN_PATH):
            click.echo(describe_object(_PLAN_PATH, store.read(_PLAN_PATH)))
        else:
            click.echo(_object(store))


def _clip(store: Store, clip: str) -> str:
    read_manifest(store)
    try:
        info = CorpusInfo.from_bytes(store.read(INFO_PATH))
        return describe_row(find_clip(store, clip), num_codes=info.tokenizer.num_codes)
    except KeyError as error:
        raise PipelineError(f"{store.url} has no clip {clip!r}") from error


def _corpus(store: Store) -> str:
    paths = [STATISTICS_PATH, QUARANTINE_PATH, MANIFEST_PATH]
    files = read_manifest(store)
    if files:
        # The smallest one: only a few of its rows are shown, but all of it is read.
        paths.append(min(files, key=lambda file: (file.format, file.bytes, file.path)).path)
    parts = [_head(CorpusInfo.from_bytes(store.read(INFO_PATH)))]
    parts += [
        f"{path}: {describe_object(path, store.read(path)).rstrip()}"
        for path in paths
        if store.exists(path)
    ]
    return "\n\n".join(parts)


def _head(info: CorpusInfo) -> str:
    videos, totals = info.videos, info.totals
    rows = {
        "videos": f"{videos.committed:,} of {videos.listed:,}, {videos.quarantined:,} set aside",
        "windows": f"{totals.clips:,}",
        "tokens": f"{totals.tokens:,} of {totals.cells:,}",
        "rate": f"{info.realised_rate:.6f}, BPP16 {info.bpp16:.6f}",
        "routing": rule_text(info.routing),
        "formats": ", ".join(info.formats),
        "data files": f"{info.files:,}, {num_bytes_text(info.num_bytes)}",
        "source": info.source_root,
        "licence": info.licence,
        "window": settings_text(info.window),
        "space": settings_text(info.space),
        "tokenizer": f"{info.tokenizer.fingerprint} ({info.tokenizer.name})",
        "plan": info.plan_id,
    }
    return "\n".join(f"{name:12} {value}" for name, value in rows.items())


def _object(store: Store) -> str:
    try:
        # The store of an object is the object.
        data = store.read("")
    except IsADirectoryError as error:
        raise IncompleteError(
            f"{store.url} is neither a corpus (no {MANIFEST_PATH}: is its run finished?) "
            f"nor a work folder (no {_PLAN_PATH})"
        ) from error
    return describe_object(posixpath.basename(store.url), data)
