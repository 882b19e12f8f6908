"""``infotok train``: a checkpoint of our own from a folder or bucket of videos."""

from __future__ import annotations

import json
import os
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

from infotok_core.checkpoint import load_checkpoint, save_directory
from infotok_core.config import mini
from infotok_core.errors import CheckpointError
from infotok_core.network import Network, build_network
from infotok_core.training import TrainingConfig, evaluate, start_as_identity
from infotok_core.training import train as train_network
from jobs.config import load_config
from pipelines.errors import PipelineError
from pipelines.sources import open_source
from pipelines.training_data import decode_clips, random_crops

__all__ = ["train"]


@click.command()
@click.argument("input_url", metavar="INPUT")
@click.argument("output", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--stages",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    help="TOML with one [[stage]] table per stage; see examples/train.toml.",
)
@click.option("--init", help="Checkpoint to start from; default: new weights of the mini network.")
@click.option("--validation", help="Videos to measure PSNR on when done; never trained on.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: cuda if there is one.")
@click.option(
    "--card",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Markdown put on top of the model card.",
)
@click.option("--size", default=256, show_default=True, help="Short side of the frames trained on.")
def train(
    *, input_url: str, output: Path, stages: Path, init: str | None, validation: str | None,
    device: str | None, card: Path | None, size: int,
) -> None:  # fmt: skip
    """Train on the videos of INPUT and write a checkpoint directory to OUTPUT."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    configs = _stages(stages)
    network = _network(init).to(device).requires_grad_(requires_grad=True)
    if device == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    clips = _clips(input_url, frames=max(config.frames for config in configs), size=size)
    click.echo(f"{len(clips)} windows to train on, {device}", err=True)
    # What does not fit is said here, and not after hours of training.
    for config in configs:
        _sampler(clips, config, "cpu")
    held_out = _clips(validation, frames=33, size=size, square=True) if validation else []
    record: list[dict[str, Any]] = []
    for number, config in enumerate(configs, 1):
        click.echo(f"stage {number}: {config}", err=True)
        network, report = train_network(
            network, _sampler(clips, config, device), config,
            clock=time.monotonic, log=lambda line: click.echo(line, err=True),
        )  # fmt: skip
        record.append(
            {"steps": report.steps, "seconds": round(report.seconds), "losses": report.losses}
        )
        _save(network, output, card, record)
        network.requires_grad_(requires_grad=True)
    result: dict[str, Any] = {"stages": record}
    if held_out:
        result["psnr_db"] = _validate(network, held_out)
    result["fingerprint"] = _save(network, output, card, [result])
    click.echo(json.dumps(result, indent=1))


def _stages(path: Path) -> list[TrainingConfig]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get("stage")
        if not tables:
            raise ValueError("there is no [[stage]]")
        return [_stage(table) for table in tables]
    except (TypeError, ValueError) as error:
        raise click.UsageError(f"{path}: {error}") from error


def _stage(table: dict[str, Any]) -> TrainingConfig:
    if "rates" in table:
        table = {**table, "rates": tuple(table["rates"])}
    return TrainingConfig(**table)


def _network(init: str | None) -> Network:
    if init is None:
        network = build_network(mini(), seed=0)
        start_as_identity(network)
        return network
    try:
        return load_checkpoint(init).network
    except CheckpointError as error:
        raise PipelineError(f"tokenizer: {error}") from error


def _sampler(
    clips: list[torch.Tensor], config: TrainingConfig, device: str
) -> Callable[[], torch.Tensor]:
    try:
        return random_crops(
            clips, frames=config.frames, crop=config.crop, batch_size=config.batch_size,
            device=device, seed=config.seed,
        )  # fmt: skip
    except ValueError as error:
        raise PipelineError(str(error)) from error


def _clips(url: str, *, frames: int, size: int, square: bool = False) -> list[torch.Tensor]:
    config = load_config(
        overrides={
            "window.frames": frames,
            "space.mode": "crop" if square else "keep",
            "space.size": size,
        }
    )
    source = open_source(url, config.source, config.source_storage)
    return decode_clips(source, config, workers=os.cpu_count() or 1)


def _validate(network: Network, clips: list[torch.Tensor]) -> dict[str, float]:
    means: dict[str, float] = {}
    for rate in (1.0, 0.75, 0.5, 0.25):
        psnr = evaluate(network.eval(), clips, rate)
        means[f"{rate}"] = round(sum(psnr) / len(psnr), 3)
    return means


def _save(network: Network, output: Path, card: Path | None, record: list[dict[str, Any]]) -> str:
    text = (
        card.read_text(encoding="utf-8") if card else "# A tokenizer trained with `infotok train`\n"
    )
    text += (
        "\n## Record of the training run\n\n```json\n" + json.dumps(record, indent=1) + "\n```\n"
    )
    return save_directory(network, output, card=text)
