"""``infotok estimate``: what a corpus will cost and come to, from a sample of its videos."""

from __future__ import annotations

import json
import time
from typing import Any

import click
import torch

from jobs.options import FiniteRange, config_from, configuration_options
from pipelines.analyser import VideoTokenizer
from pipelines.config import RunConfig
from pipelines.estimate import Estimate
from pipelines.estimate import estimate as estimate_corpus
from pipelines.estimate_text import estimate_text
from pipelines.plan_draft import draft_plan
from pipelines.reachable import check_reachable
from pipelines.sources import open_source
from pipelines.storage import Store
from pipelines.tokenizer_actor import load_tokenizer
from pipelines.tokenizer_choice import (
    check_device,
    check_windows,
    chosen_tokenizer,
    opening_tokenizer,
)

__all__ = ["estimate"]

_MOST_WINDOWS = 64
"""Frames of those of one video are held until it is decoded: 6.5 MB a window of 33x256x256."""


@click.command()
@click.argument("input_url", metavar="INPUT")
@click.option(
    "--sample", type=click.IntRange(min=1), default=16, show_default=True, metavar="N",
    help="Videos to decode; chosen by their ids, as --statistics-sample does.",
)  # fmt: skip
@click.option(
    "--windows", type=click.IntRange(min=1, max=_MOST_WINDOWS), default=2, show_default=True,
    metavar="N", help="Windows of each that the tokenizer analyses.",
)  # fmt: skip
@click.option("--rate", type=float, help="Mean share of tokens to keep, in [1/16, 1]; default 0.5.")
@click.option(
    "--clips-per-s", type=FiniteRange(min=0, min_open=True), metavar="X",
    help="Hours are those of a device with this speed, instead of the one measured here.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
@configuration_options
def estimate(
    *, input_url: str, sample: int, windows: int, rate: float | None, clips_per_s: float | None,
    as_json: bool, **options: Any,  # noqa: ANN401
) -> None:  # fmt: skip
    """Look at a sample of INPUT's videos: what would all of them come to?

    Nothing is written. Videos of the sample are decoded whole.
    """
    config = config_from(options, **{"routing.rate": rate})
    check_reachable(Store(input_url, config.source_storage))
    result = _estimate(input_url, config, sample, windows, clips_per_s)
    if as_json:
        click.echo(json.dumps(result.document(), indent=1, sort_keys=True))
    else:
        click.echo(estimate_text(result))


def _estimate(
    input_url: str, config: RunConfig, sample: int, windows: int, clips_per_s: float | None
) -> Estimate:
    tokenizer = chosen_tokenizer(config)
    check_windows(config, tokenizer)
    source = open_source(input_url, config.source, config.source_storage)
    device = config.tokenizer.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        torch.set_num_threads(config.tokenizer.cpu_threads)
    check_device(config, tokenizer, device)
    with draft_plan(source, config, tokenizer=tokenizer.fingerprint) as draft:
        return estimate_corpus(
            draft,
            config,
            tokenizer,
            lambda: _loaded(config, device),
            sample=sample,
            windows_per_video=windows,
            windows_per_s=clips_per_s,
            clock=time.perf_counter,
            cpu_clock=time.process_time,
            say=lambda line: click.echo(line, err=True),
        )


def _loaded(config: RunConfig, device: str) -> VideoTokenizer:
    with opening_tokenizer():
        return load_tokenizer(config, device)
