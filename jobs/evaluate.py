"""``infotok evaluate``: how good a tokenizer and its router are, on any videos."""

from __future__ import annotations

import platform
import shlex
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import torch

from infotok_core.errors import CheckpointError, InfoTokError
from infotok_core.fvd import ClipFeatures
from infotok_core.information import InformationSource
from infotok_core.opening import open_tokenizer
from infotok_core.perceptual import Lpips
from jobs.config import load_config
from jobs.evaluation_files import EvaluationFiles, read_evaluation
from jobs.machine import usable_cpus
from jobs.options import refuse_idle
from jobs.reading import reading, store_options
from pipelines.config import RunConfig, StorageConfig
from pipelines.errors import PipelineError
from pipelines.evaluation.clips import ClipSource
from pipelines.evaluation.evaluate import evaluate as evaluate_clips
from pipelines.evaluation.measuring import Metrics
from pipelines.evaluation.settings import Clocks, EvaluatedTokenizer, EvaluationConfig
from schemas.evaluation import EvaluationReport

__all__ = ["evaluate"]

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_MAX_WORKERS = 32
"""By default: each takes 60 MB."""
_CLOCKS = Clocks(wall=time.perf_counter, cpu=time.process_time)


def _numbers(ctx: click.Context, param: click.Parameter, value: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in value.split(",") if part.strip())
    except ValueError:
        raise click.BadParameter(f"{value!r} is not numbers with commas between them") from None


@click.command()
@click.argument("input_url", metavar="INPUT", required=False)
@click.option(
    "--from-json",
    type=_FILE,
    help="Measure nothing: tables and pictures of what an earlier run wrote with --json.",
)
@click.option(
    "--rates",
    callback=_numbers,
    default="1.0,0.75,0.5,0.25",
    show_default=True,
    help="Asked mean shares of kept tokens.",
)
@click.option(
    "--sweep",
    type=click.Choice(["basic", "full"]),
    default="basic",
    show_default=True,
    help="full: also R2L and Jump, Eq. 4, a grid of rates, the optimum and the search.",
)
@click.option(
    "--latent-router",
    is_flag=True,
    help="Also predict the information from the latents, and compare ranks, PSNR and cost.",
)
@click.option(
    "--max-windows",
    type=click.IntRange(min=1),
    help="An even sample of so many windows instead of all.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Write everything; - prints it instead of the tables.",
)
@click.option(
    "--markdown",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the tables.",
)
@click.option(
    "--plots",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Draw pictures (needs the extra 'plots').",
)
@click.option(
    "--checkpoint",
    default="default",
    show_default=True,
    help="'default', a checkpoint directory, or a published .pt file.",
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: cuda if there is one.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Precision of the network; half precision on a GPU only.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Windows or decodes per call on a GPU.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Default: the number of CPUs.")
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Processes that compute SSIM; 0: none but this one. Default: one for each CPU.",
)
@click.option("--frames", default=33, show_default=True, help="Per window.")
@click.option("--size", default=256, show_default=True, help="Side of the centre crop.")
@click.option(
    "--grid-points",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Rates 1/n .. n/n that search and optimum choose from (full sweep).",
)
@click.option(
    "--exponent",
    default=1.0,
    show_default=True,
    help="Of the ELBO in the router: 0.25, 0.5, 0.75, or 1 as in the paper.",
)
@click.option(
    "--grid-selection",
    type=click.Choice(["information", "r2l", "jump"]),
    default="information",
    show_default=True,
    help="Which tokens go first there.",
)
@click.option(
    "--search-psnr",
    callback=_numbers,
    default="",
    metavar="DB[,DB...]",
    help="Also search for these thresholds.",
)
@click.option("--measure-all", is_flag=True, help="SSIM, LPIPS and FVD of search and optimum, too.")
@click.option("--lpips-vgg", type=_FILE, help="torchvision's vgg16 weights, for LPIPS.")
@click.option("--lpips-heads", type=_FILE, help="LPIPS' linear heads for VGG16.")
@click.option("--i3d", type=_FILE, help="I3D as TorchScript, for FVD.")
@store_options
@click.pass_context
def evaluate(
    context: click.Context,
    input_url: str | None,
    from_json: Path | None,
    **options: Any,  # noqa: ANN401
) -> None:
    """Measure a tokenizer on the full windows of the videos of INPUT.

    Every rate is met by real decodes, for the same rate everywhere, for the ELBO router with its
    exact corpus budget and for one threshold for all tokens; see docs/evaluation.md for what the
    numbers mean.
    """
    files = EvaluationFiles.of(options)
    if from_json is not None:
        report = read_evaluation(from_json, context)
        files.write(report, commands=[shlex.join(("infotok", *sys.argv[1:]))])
    elif input_url is not None:
        files.write(_measure(input_url, options))
    else:
        raise click.UsageError("nothing to do: INPUT names videos, --from-json FILE results")


def _measure(input_url: str, options: dict[str, Any]) -> EvaluationReport:
    config, settings = _config(options)
    started, clock = datetime.now(UTC), time.monotonic()
    torch.set_num_threads(settings["threads"])
    tokenizer = _tokenizer(options)
    predictor = _tokenizer(options, "latent") if options["latent_router"] else None
    metrics = _metrics(options, tokenizer.device)
    run_config = _run_config(options)
    try:
        with reading(input_url), ClipSource(input_url, run_config) as source:
            found = evaluate_clips(
                source, tokenizer, config, metrics=metrics, workers=settings["workers"],
                clocks=_CLOCKS, say=lambda line: click.echo(line, err=True), predictor=predictor,
            )  # fmt: skip
            root = source.root
    except InfoTokError as error:
        raise PipelineError(str(error)) from error
    return EvaluationReport(
        command=("infotok", *sys.argv[1:]),
        started=started.isoformat(timespec="seconds"),
        seconds=time.monotonic() - clock,
        machine=_machine(tokenizer.device),
        checkpoint=options["checkpoint"],
        fingerprint=tokenizer.fingerprint,
        num_codes=tokenizer.config.codebook_size,
        temporal_compression=tokenizer.config.temporal_compression,
        spatial_compression=tokenizer.config.spatial_compression,
        source_root=root,
        settings=settings | asdict(config),
        clips=found.clips,
        outcomes=found.outcomes,
        left_out=found.left_out,
        prediction=found.prediction,
    )


def _config(options: dict[str, Any]) -> tuple[EvaluationConfig, dict[str, Any]]:
    """What to look at, and the settings beside it."""
    if options["sweep"] != "full" and not options["search_psnr"]:
        why = "without --sweep full or --search-psnr there is no grid of rates"
        refuse_idle(["grid_points", "grid_selection", "measure_all"], why)
    try:
        config = EvaluationConfig(
            search_psnr_db=options["search_psnr"],
            **{
                name: options[name]
                for name in ("rates", "sweep", "max_windows", "batch_size", "grid_points",
                             "grid_selection", "exponent", "measure_all")
            },
        )  # fmt: skip
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if bool(options["lpips_vgg"]) != bool(options["lpips_heads"]):
        raise click.UsageError("LPIPS takes both: --lpips-vgg FILE and --lpips-heads FILE")
    settings = {name: options[name] for name in ("frames", "size", "dtype")}
    settings["threads"] = options["threads"] or usable_cpus()
    workers = options["workers"]
    return config, settings | {
        "workers": min(usable_cpus(), _MAX_WORKERS) if workers is None else workers
    }


def _run_config(options: dict[str, Any]) -> RunConfig:
    storage: StorageConfig = options["storage"]
    return load_config(
        overrides={
            "window.frames": options["frames"],
            "space.size": options["size"],
            "source_storage.endpoint_url": storage.endpoint_url,
            "source_storage.profile": storage.profile,
        }
    )


def _tokenizer(
    options: dict[str, Any], information: InformationSource = "elbo"
) -> EvaluatedTokenizer:
    device = options["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return open_tokenizer(
            options["checkpoint"], device=device, dtype=getattr(torch, options["dtype"]),
            information=information,
        )  # fmt: skip
    except CheckpointError as error:
        raise PipelineError(f"tokenizer: {error}") from error
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _metrics(options: dict[str, Any], device: torch.device) -> Metrics:
    vgg, heads, i3d = (options[name] for name in ("lpips_vgg", "lpips_heads", "i3d"))
    try:
        return Metrics(
            lpips=Lpips.load(vgg, heads).to(device) if vgg else None,
            features=ClipFeatures.load(i3d, device=device) if i3d else None,
        )
    except InfoTokError as error:
        raise PipelineError(str(error)) from error


def _machine(device: torch.device) -> dict[str, str | int | float | None]:
    cuda = device.type == "cuda"
    return {
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpus": usable_cpus(),
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
