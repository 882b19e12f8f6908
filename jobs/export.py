"""``infotok export``: a checkpoint as programs that run without this package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import click

from infotok_core.code_space_files import holds_compressor, open_code_space
from infotok_core.errors import CheckpointError
from infotok_core.export import ExportFormat, export_programs
from infotok_core.opening import identify_tokenizer
from infotok_core.tokenizer import Tokenizer
from pipelines.errors import PipelineError

__all__ = ["export"]


@click.command()
@click.argument("checkpoint")
@click.argument("output", metavar="OUTPUT", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--format",
    "kind",
    type=click.Choice(["jit", "pt2"]),
    default="jit",
    show_default=True,
    help="TorchScript, any shape; or torch.export, any batch of one --window.",
)
@click.option(
    "--window",
    metavar="T,H,W",
    help="Frames, rows and columns of pt2 programs; default 33,256,256.",
)
def export(*, checkpoint: str, output: Path, kind: str, window: str | None) -> None:
    """Write CHECKPOINT to OUTPUT as an encoder and a decoder program, transformers included.

    CHECKPOINT is 'default', a directory of ours, or a published .pt file. The programs are run and
    compared with the network before the command ends. TorchScript programs are a checkpoint again:
    --checkpoint OUTPUT.
    """
    if window is not None and kind == "jit":
        raise click.UsageError("--window is for --format pt2: TorchScript takes any shape")
    shape = _window(window or "33,256,256")
    try:
        tokenizer = _tokenizer(checkpoint)
        report = export_programs(tokenizer, output, kind=cast(ExportFormat, kind), window=shape)
        # The folder, also if it has the name of the checkpoint that comes with this package.
        identity = identify_tokenizer(output.absolute()).fingerprint if kind == "jit" else None
    except CheckpointError as error:
        raise PipelineError(str(error)) from error
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    except OSError as error:
        raise PipelineError(f"{output} cannot be written: {error.strerror or error}") from error
    document: dict[str, Any] = {
        "encoder": str(report.encoder),
        "decoder": str(report.decoder),
        "source_fingerprint": tokenizer.fingerprint,
        "fingerprint": identity,
        "compared_tokens": report.compared_tokens,
        "max_error": report.max_error,
    }
    click.echo(json.dumps(document, indent=1))


def _tokenizer(checkpoint: str) -> Tokenizer:
    """A network of ours, or one around programs; programs alone are none."""
    if holds_compressor(Path(checkpoint)):
        return open_code_space(checkpoint, device="cpu", dtype=None)
    return Tokenizer.load(checkpoint)


def _window(text: str) -> tuple[int, int, int]:
    try:
        frames, height, width = (int(size) for size in text.split(","))
    except ValueError as error:
        raise click.UsageError(f"--window is T,H,W, not {text!r}") from error
    return frames, height, width
