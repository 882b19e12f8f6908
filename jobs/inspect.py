"""``infotok inspect``: any stored object, any clip, or a whole corpus, as text."""

from __future__ import annotations

import posixpath

import click

from jobs.reading import reading, store_options
from pipelines.config import StorageConfig
from pipelines.errors import IncompleteError, PipelineError
from pipelines.inspect import describe_object, describe_row, find_clip
from pipelines.storage import Store
from schemas.layout import INFO_PATH, MANIFEST_PATH, QUARANTINE_PATH, STATISTICS_PATH
from schemas.manifest import decode_manifest

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
        if clip is not None:
            click.echo(_clip(store, clip))
        elif store.exists(MANIFEST_PATH):
            click.echo("\n\n".join(_corpus(store)))
        elif store.exists(_PLAN_PATH):
            click.echo(describe_object(_PLAN_PATH, store.read(_PLAN_PATH)))
        else:
            click.echo(_object(store, storage))


def _clip(store: Store, clip: str) -> str:
    if not store.exists(MANIFEST_PATH):
        raise IncompleteError(f"{store.url} is no corpus (no {MANIFEST_PATH}): --clip needs one")
    try:
        return describe_row(find_clip(store, clip))
    except KeyError as error:
        raise PipelineError(f"{store.url} has no clip {clip!r}") from error


def _corpus(store: Store) -> list[str]:
    paths = [INFO_PATH, STATISTICS_PATH, QUARANTINE_PATH, MANIFEST_PATH]
    files = decode_manifest(store.read(MANIFEST_PATH))
    if files:
        # The smallest one: only a few of its rows are shown, but all of it is read.
        paths.append(min(files, key=lambda file: (file.format, file.bytes, file.path)).path)
    return [
        f"== {path}\n{describe_object(path, store.read(path))}"
        for path in paths
        if store.exists(path)
    ]


def _object(store: Store, storage: StorageConfig) -> str:
    folder, name = posixpath.split(store.url)
    try:
        data = Store(folder or "/", storage).read(name)
    except IsADirectoryError as error:
        raise IncompleteError(
            f"{store.url} is neither a corpus (no {MANIFEST_PATH}: is its run finished?) "
            f"nor a work folder (no {_PLAN_PATH})"
        ) from error
    return describe_object(name, data)
