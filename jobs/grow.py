"""Corpora that grow: ``infotok append``, ``retry-failed``, ``merge``."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any, Literal

import click

from jobs.config import load_config
from jobs.engine import engine
from jobs.reading import reading, store_options
from pipelines.claims import claim_output, stored_config
from pipelines.config import StorageConfig
from pipelines.growing import Growth, only, open_growth
from pipelines.merging import CorpusPart, merged_key
from pipelines.merging import merge as merge_corpora
from pipelines.reachable import check_reachable
from pipelines.run import Corpus
from pipelines.sources import open_source
from pipelines.storage import Store
from schemas.failures import FailureReason
from schemas.info import CorpusInfo, TokenizerInfo

__all__ = ["append", "merge", "retry_failed"]

_REASONS = click.Choice([reason.value for reason in FailureReason], case_sensitive=False)


def _growing(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of both ways to grow."""
    decorators = [
        click.argument("input_url", metavar="INPUT"),
        click.argument("output", metavar="OUTPUT"),
        click.option(
            "--statistics", "rates", type=click.Choice(["same", "new"]), default="same",
            show_default=True,
            help="same: the rule of the corpus, whatever rate it gives the new videos. new: a "
            "scale solved on them, so that they meet the rate themselves; windows of equal "
            "information then keep other numbers of tokens than before.",
        ),
        click.option("--work", help="Work folder; default OUTPUT/_work."),
        click.option(
            "--set", "assignments", multiple=True, metavar="TABLE.KEY=VALUE",
            help="Override a key of the corpus' own configuration, say of runtime; repeatable.",
        ),
        store_options,
    ]  # fmt: skip
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


@click.command()
@_growing
def append(**options: Any) -> None:  # noqa: ANN401
    """Add the videos of INPUT that OUTPUT does not know yet, as a new generation.

    The configuration is that of OUTPUT. Killed or stopped, the same command goes on from there.
    """
    known = f"it knows all videos of {options['input_url']}"
    _grow(lambda growth: growth.new(), lambda _: known, **options)


@click.command("retry-failed")
@_growing
@click.option("--reason", type=_REASONS, multiple=True, help="Only these; repeatable.")
def retry_failed(*, reason: tuple[str, ...], **options: Any) -> None:  # noqa: ANN401
    """Try the quarantined videos of OUTPUT again; what comes through joins it as a new generation.

    INPUT is what the corpus was made from.
    """
    why = f" for {', '.join(reason)}" if reason else ""

    def nothing(growth: Growth) -> str:
        if not growth.set_aside(reason):
            return f"none of its videos was set aside{why}"
        return f"{options['input_url']} holds none of the videos that were set aside{why}"

    _grow(lambda growth: growth.set_aside(reason).__contains__, nothing, **options)


def _grow(
    choose: Callable[[Growth], Callable[[str], bool]], nothing: Callable[[Growth], str], *,
    input_url: str, output: str,
    rates: Literal["same", "new"], work: str | None, assignments: tuple[str, ...],
    storage: StorageConfig,
) -> None:  # fmt: skip
    store = Store(output, storage)
    with reading(store.url):
        check_reachable(store)
        place = Store(work, storage) if work else store.child("_work")
        growth = open_growth(store, place)
        config = load_config(assignments=assignments, base=stored_config(store))
        corpus = Corpus.open(config, output=growth.corpus.url, work=growth.work.url)
        listed = functools.partial(
            open_source, input_url, config.source, config.source_storage,
            exclude_roots=(store.url, place.url), extra_types=growth.base.info.extra_columns,
        )  # fmt: skip
        source = listed()
        growth.check(config, _tokenizer(corpus), source, rates)
        wanted = choose(growth)
        if next(only(source, wanted).objects, None) is None:
            click.echo(f"nothing to add to {store.url}: {nothing(growth)}", err=True)
            return
        corpus.check_stores()
        corpus.plan(only(listed(), wanted))
    with engine() as control:
        corpus.analyse(control)
        corpus.tokenise(control, rule=growth.rule(rates))
    with reading(store.url):
        grown = growth.finish(rates)
    new = grown.generations[-1]
    _print(grown, videos_added=new.videos, windows_added=new.totals.clips)


def _tokenizer(corpus: Corpus) -> TokenizerInfo:
    shape = corpus.tokenizer.shape
    return TokenizerInfo(
        fingerprint=corpus.tokenizer.fingerprint,
        name=corpus.config.tokenizer.checkpoint,
        num_codes=shape.codebook_size,
        spatial_compression=shape.spatial_compression,
        temporal_compression=shape.temporal_compression,
    )


@click.command()
@click.argument("corpora", nargs=-1, required=True)
@click.argument("output", metavar="OUTPUT")
@store_options
def merge(*, corpora: tuple[str, ...], output: str, storage: StorageConfig) -> None:
    """Put the data files of CORPORA, two or more, into OUTPUT, as one corpus.

    They must agree in tokenizer, policies, rate, formats and source root, and share no video. Files
    are copied as they are.
    """
    if len(corpora) < 2:
        raise click.UsageError("name two corpora or more, and then the output")
    store = Store(output, storage)
    with reading(store.url):
        parts = []
        for url in corpora:
            check_reachable(Store(url, storage))
            parts.append(CorpusPart.read(Store(url, storage)))
        claim = functools.partial(
            claim_output, store, merged_key(parts), stored_config(parts[0].store),
            instead="Merge into an empty folder.",
        )  # fmt: skip
        # Parts that are refused leave no claim behind.
        _print(merge_corpora(parts, store, begin=claim))


def _print(info: CorpusInfo, **more: int) -> None:
    document = {
        **more,
        "generations": len(info.generations),
        "videos_listed": info.videos.listed,
        "videos_committed": info.videos.committed,
        "videos_quarantined": info.videos.quarantined,
        "windows": info.totals.clips,
        "tokens": info.totals.tokens,
        "rate_realised": info.realised_rate,
        "files": info.files,
        "bytes": info.num_bytes,
    }
    click.echo(json.dumps(document, indent=1, sort_keys=True))
