"""``infotok train``: a checkpoint of our own from a folder or bucket of videos."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any, Literal

import click
import torch
import torch.distributed as dist

from infotok_core.training import TrainingError
from infotok_core.world import World
from jobs.options import FiniteRange, config_from, configuration_options, refuse_idle
from pipelines.errors import InterruptedRunError, PipelineError
from pipelines.training_recipe import load_recipe
from pipelines.training_run import TrainingJob, TrainingResult, run_training

__all__ = ["train"]

_TABLES = ("source", "source_storage", "limits")
_KEYS = ("window.fps",)
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.argument("input_url", metavar="INPUT")
@click.argument("output", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--recipe",
    "recipe_file",
    type=_FILE,
    required=True,
    help="TOML with the network, the data and the stages; see examples/train.toml.",
)
@click.option(
    "--init",
    help="What to start from: a checkpoint of ours, a published .pt, or a Cosmos base (.pt, "
    "autoencoder.jit, encoder.jit and decoder.jit); default: new weights.",
)
@click.option(
    "--base",
    help="Directory of encoder.jit and decoder.jit to put a compressor on; they stay as they are.",
)
@click.option("--validation", help="Videos to measure PSNR on after each stage; never trained on.")
@click.option(
    "--validation-windows",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="At most so many of their windows.",
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: cuda if there is one.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Train on so many GPUs (processes on CPU) through Ray Train; torchrun works as well.",
)
@click.option(
    "--max-minutes",
    type=FiniteRange(min=0),
    help="Stop cleanly then; the same command goes on.",
)
@click.option("--perceptual", type=_FILE, help="Weights of the perceptual loss (VGG16).")
@click.option("--card", type=_FILE, help="Markdown put on top of the model card.")
@configuration_options
def train(
    *, input_url: str, output: Path, recipe_file: Path, init: str | None, base: str | None,
    validation: str | None, validation_windows: int, device: Literal["cpu", "cuda"] | None,
    workers: int | None, max_minutes: float | None, perceptual: Path | None, card: Path | None,
    **options: Any,  # noqa: ANN401
) -> None:  # fmt: skip
    """Train on the videos of INPUT and write a checkpoint directory to OUTPUT.

    Killed or stopped, the same command goes on where it was. Of the configuration the tables
    source, source_storage, limits and the key window.fps apply.
    """
    if options.get("checkpoint"):
        raise click.UsageError("--checkpoint is not for training: name the start with --init")
    if options.get("single_writer"):
        raise click.UsageError("--single-writer is not for training, which writes to a disk")
    if base and init:
        raise click.UsageError("--base and --init exclude each other: a base brings its compressor")
    if not validation:
        refuse_idle(["validation_windows"], "there is no --validation to take them from")
    _require_used(options["assignments"])
    try:
        recipe = load_recipe(recipe_file)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if perceptual and not recipe.is_perceptual:
        raise click.UsageError("--perceptual: no stage has a perceptual_weight")
    job = TrainingJob(
        input_url=input_url, output=output.absolute(), recipe=recipe, config=config_from(options),
        init=init, base=base, validation=validation, validation_windows=validation_windows,
        perceptual=perceptual, card=card,
        max_s=None if max_minutes is None else 60 * max_minutes,
    )  # fmt: skip
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    result = _on_cluster(job, device, workers) if workers else _in_this_process(job, device)
    if result is not None:
        click.echo(json.dumps({"finished": result.finished, **result.document}, indent=1))


def _require_used(assignments: Iterable[str]) -> None:
    """What was set by hand and would change nothing was meant for the recipe."""
    for assignment in assignments:
        key = assignment.partition("=")[0].strip()
        if key.partition(".")[0] not in _TABLES and key not in _KEYS:
            raise click.UsageError(
                f"--set {key} is not for training, which takes {', '.join(_TABLES)} and "
                f"{', '.join(_KEYS)}; everything else is said by the recipe"
            )


def _on_cluster(job: TrainingJob, device: Literal["cpu", "cuda"], workers: int) -> TrainingResult:
    from jobs.cluster import named_cluster
    from jobs.engine import engine
    from pipelines.training_cluster import train_on_cluster

    for number, stage in enumerate(job.recipe.stages, 1):
        try:
            World(size=workers).share(stage.batch_size)
        except ValueError as error:
            raise click.UsageError(f"--workers {workers}: stage {number}: {error}") from error
    own = named_cluster() is None
    # A stop waits for the state that the same command goes on from.
    with engine(patience_s=None) as control:
        result = train_on_cluster(job, device=device, workers=workers, stop=control.stop, own=own)
        if control.stop.is_set() and not result.finished:
            raise InterruptedRunError("stopped; the same command goes on from here")
        return result


def _in_this_process(job: TrainingJob, device: Literal["cpu", "cuda"]) -> TrainingResult | None:
    """Alone, or as one of the processes torchrun has started; only the first has a result."""
    if device == "cuda" and not torch.cuda.is_available():
        raise PipelineError("--device cuda: there is no GPU here that torch can use")
    with _stop_flag() as stop, _process_group(device) as (rank, place):
        try:
            result = run_training(
                job, device=place, say=lambda line: click.echo(line, err=True),
                should_stop=stop.is_set,
            )  # fmt: skip
        except TrainingError as error:
            raise PipelineError(str(error)) from error
        if stop.is_set() and not result.finished:
            raise InterruptedRunError("stopped; the same command goes on from here")
        return result if rank == 0 else None


@contextlib.contextmanager
def _process_group(
    device: Literal["cpu", "cuda"],
) -> Generator[tuple[int, torch.device]]:
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0, torch.device(device)
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    place = torch.device("cuda", local) if device == "cuda" else torch.device("cpu")
    if device == "cuda":
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield dist.get_rank(), place
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def _stop_flag() -> Generator[threading.Event]:
    flag = threading.Event()
    previous = {
        number: signal.signal(number, lambda *_: flag.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield flag
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
