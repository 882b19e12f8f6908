"""``infotok run``, and its passes one by one: ``plan``, ``analyse``, ``tokenise``."""

from __future__ import annotations

import json
from typing import Any

import click

from jobs.engine import engine
from jobs.options import config_from, configuration_options, refuse_idle, work_option
from jobs.reading import reading
from pipelines.config import RunConfig
from pipelines.empty_folders import no_folders_left
from pipelines.errors import PipelineError
from pipelines.plan import Plan
from pipelines.reachable import check_reachable
from pipelines.run import Corpus
from pipelines.storage import Store
from pipelines.wording import unread_text
from schemas.failures import FailureReason
from schemas.layout import QUARANTINE_PATH

__all__ = ["analyse", "plan", "run", "tokenise"]

_FORMATS = click.Choice(["parquet", "webdataset", "both"])
_REASONS = click.Choice([reason.value for reason in FailureReason], case_sensitive=False)

_sample_option = click.option(
    "--statistics-sample",
    type=float,
    metavar="FRACTION",
    help="Solve E[ELBO] and the budget on this share of the videos; the rate is then approximate.",
)


def _corpus(
    options: dict[str, Any], config: RunConfig, output: str, input_url: str | None = None
) -> Corpus:
    # Before the weights are read, which takes longer.
    if input_url is not None:
        check_reachable(Store(input_url, config.source_storage))
    check_reachable(Store(output, config.output_storage))
    return Corpus.open(config, output=output, work=options.pop("work"))


def _planned(corpus: Corpus, input_url: str) -> Plan:
    # The stores are tried by writing: an input that is refused shall leave no folder behind.
    source = corpus.source(input_url)
    with no_folders_left(corpus.work, corpus.output, when_refused=True):
        corpus.check_stores()
        return corpus.plan(source)


@click.command()
@click.argument("input_url", metavar="INPUT")
@click.argument("output", metavar="OUTPUT")
@click.option("--rate", type=float, help="Mean share of tokens to keep, in [1/16, 1]; default 0.5.")
@click.option("--format", "format_", type=_FORMATS, help="Data files to write; default parquet.")
@_sample_option
@click.option("--dry-run", is_flag=True, help="Only list: print what would be done.")
@work_option
@configuration_options
def run(
    *, input_url: str, output: str, rate: float | None, format_: str | None,
    statistics_sample: float | None, dry_run: bool, **options: Any,  # noqa: ANN401
) -> None:  # fmt: skip
    """Tokenise every video of INPUT (folder, bucket prefix, glob, manifest) into OUTPUT.

    Killed or stopped anywhere, the same command goes on from there.
    """
    choices = {"routing.rate": rate, "output.format": format_}
    config = config_from(options, **choices, **{"statistics.sample": statistics_sample})
    corpus = _corpus(options, config, output, input_url)
    if dry_run:
        _print(corpus.preview(input_url))
        return
    # What can be wrong with the input or the stores shows before Ray is started.
    _planned(corpus, input_url)
    with engine() as control:
        corpus.analyse(control)
        summary = corpus.tokenise(control)
    _finish(summary, corpus)


@click.command()
@click.argument("input_url", metavar="INPUT")
@click.argument("output", metavar="OUTPUT")
@work_option
@configuration_options
def plan(*, input_url: str, output: str, **options: Any) -> None:  # noqa: ANN401
    """List INPUT and fix names, order and shards; no video is opened."""
    corpus = _corpus(options, config_from(options), output, input_url)
    head = _planned(corpus, input_url).head
    _print(head.model_dump(include={"plan_id", "source_root", "videos", "num_bytes", "shards"}))


@click.command()
@click.argument("input_url", metavar="INPUT")
@click.argument("output", metavar="OUTPUT")
@click.option(
    "--retry-failed", is_flag=True, help="Run the quarantined videos, and only those, again."
)
@_sample_option
@click.option("--reason", type=_REASONS, multiple=True, help="With --retry-failed: only these.")
@work_option
@configuration_options
def analyse(
    *,
    input_url: str,
    output: str,
    retry_failed: bool,
    reason: tuple[str, ...],
    statistics_sample: float | None,
    **options: Any,  # noqa: ANN401
) -> None:
    """Pass one: decode and encode every video of INPUT, and freeze the ELBO statistics."""
    if not retry_failed:
        refuse_idle(["reason"], "without --retry-failed nothing is run again")
    config = config_from(options, **{"statistics.sample": statistics_sample})
    corpus = _corpus(options, config, output, input_url)
    _planned(corpus, input_url)
    if retry_failed:
        click.echo(f"retrying {corpus.forget_quarantined(reason)} videos", err=True)
    with engine() as control:
        statistics = corpus.analyse(control)
    _print(
        {
            "windows": statistics.windows,
            "tokens": statistics.tokens,
            "token_weighted_mean_elbo": statistics.token_weighted_mean,
            "window_weighted_mean_elbo": statistics.window_weighted_mean,
            "videos_sampled": statistics.num_sampled,
            "confidence_half_width": statistics.confidence_half_width,
            "digest": statistics.digest,
        }
    )


@click.command()
@click.argument("output", metavar="OUTPUT")
@click.option("--rate", type=float, help="Mean share of tokens to keep, in [1/16, 1]; default 0.5.")
@click.option("--format", "format_", type=_FORMATS, help="Data files to write; default parquet.")
@work_option
@configuration_options
def tokenise(
    *,
    output: str,
    rate: float | None,
    format_: str | None,
    **options: Any,  # noqa: ANN401
) -> None:
    """Pass two: stored analyses to token shards in OUTPUT; needs no video and no GPU.

    With another --rate and --work pointing at an earlier run's work folder this retargets a corpus
    in seconds.
    """
    config = config_from(options, **{"routing.rate": rate, "output.format": format_})
    corpus = _corpus(options, config, output)
    # Where pass one is not finished, nothing is made.
    with reading(corpus.work.url):
        corpus.analysed()
    corpus.check_stores()
    with engine() as control:
        summary = corpus.tokenise(control)
    _finish(summary, corpus)


def _finish(summary: dict[str, Any], corpus: Corpus) -> None:
    _print(summary)
    listed, quarantined = summary["videos_listed"], summary["videos_quarantined"]
    if quarantined == listed:
        why = f"`infotok inspect {corpus.output.full(QUARANTINE_PATH)}` says why"
        click.echo(f"none of {listed} videos is in the corpus; {why}", err=True)
    unread = unread_text(summary["quarantine_reasons"])
    if unread is not None:
        click.echo(unread, err=True)
    most = corpus.config.runtime.max_failure_rate
    if quarantined > most * listed:
        raise PipelineError(
            f"{quarantined} of {listed} videos are quarantined, more than "
            f"runtime.max_failure_rate = {most}"
        )


def _print(document: dict[str, Any]) -> None:
    click.echo(json.dumps(document, indent=1, sort_keys=True))
