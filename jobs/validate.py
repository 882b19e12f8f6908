"""``infotok validate``: read a whole corpus back and say what is wrong with it."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from jobs.reading import reading, store_options
from pipelines.config import StorageConfig
from pipelines.errors import AccountingError, IncompleteError
from pipelines.reachable import check_reachable
from pipelines.storage import Store
from pipelines.validate import ValidationReport
from pipelines.validate import validate as validate_corpus
from schemas.layout import MANIFEST_PATH

__all__ = ["validate"]


@click.command()
@click.argument("corpus")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
@store_options
def validate(*, corpus: str, as_json: bool, storage: StorageConfig) -> None:
    """Read CORPUS back and check it against its manifest, its head and the rules of its rows.

    Exits with 3 if something is wrong, with 4 if there is no corpus.
    """
    store = Store(corpus, storage)
    with reading(store.url):
        check_reachable(store)
        # A damaged manifest is a fault to report; without one there is nothing to check.
        if not store.exists(MANIFEST_PATH):
            raise IncompleteError(
                f"{store.url} holds no corpus: there is no {MANIFEST_PATH}, which a run writes last"
            )
        report = validate_corpus(store)
    if as_json:
        click.echo(json.dumps(_document(report), indent=1, sort_keys=True))
    else:
        click.echo(report.summary())
        for fault in report.faults:
            click.echo(str(fault))
    if not report.ok:
        raise SystemExit(AccountingError.exit_code)


def _document(report: ValidationReport) -> dict[str, object]:
    return {
        "ok": report.ok,
        "faults": [asdict(fault) for fault in report.faults],
        "files": report.num_files,
        "bytes": report.num_bytes,
        "videos": report.num_videos,
        "windows": report.totals.clips,
        "tokens": report.totals.tokens,
        "rate": report.totals.rate,
    }
