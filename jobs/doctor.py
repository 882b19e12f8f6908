"""``infotok doctor``: would a run work here, and if not, what is to be done?"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict
from typing import Any

import click
import ray
import torch

from jobs.machine import usable_cpus
from jobs.options import config_from, configuration_options, work_option
from pipelines.doctor import ClusterShape, examine
from pipelines.errors import PipelineError
from pipelines.findings import Finding, Verdict
from pipelines.storage import Store

__all__ = ["doctor"]


@click.command()
@click.argument("input_url", metavar="[INPUT]", required=False)
@click.argument("output", metavar="[OUTPUT]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
@work_option
@configuration_options
def doctor(
    *, input_url: str | None, output: str | None, as_json: bool, **options: Any,  # noqa: ANN401
) -> None:  # fmt: skip
    """Check codecs, weights, memory, cluster, disks, and whether INPUT and OUTPUT can be used.

    Looks at the cluster of RAY_ADDRESS, else at this machine. Exits with 1 if a run would fail.
    """
    work = options.pop("work")
    config = config_from(options)
    stores: dict[str, Store] = {}
    if output is not None:
        stores["output"] = Store(output, config.output_storage)
    if work is not None:
        stores["work"] = Store(work, config.output_storage)
    found: list[Finding] = []
    for finding in examine(config, _shape(), source=input_url, stores=stores):
        found.append(finding)
        if not as_json:
            click.echo(_line(finding))
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in found], indent=1))
    if any(finding.verdict is Verdict.BAD for finding in found):
        raise SystemExit(PipelineError.exit_code)


def _line(finding: Finding) -> str:
    line = f"{finding.verdict:5} {finding.name:14} {finding.what}"
    return f"{line}\n{'':21}-> {finding.advice}" if finding.advice else line


def _shape() -> ClusterShape:
    if "RAY_ADDRESS" not in os.environ:
        # What a local Ray would find.
        return ClusterShape(cpus=usable_cpus(), gpus=torch.cuda.device_count(), nodes=1)
    try:
        ray.init(logging_level=logging.ERROR, log_to_driver=False)
    except ConnectionError as error:
        raise PipelineError(
            f"there is no Ray at RAY_ADDRESS={os.environ['RAY_ADDRESS']}: {error}. Start one, or "
            "unset RAY_ADDRESS to look at this machine"
        ) from error
    try:
        resources = ray.cluster_resources()
        return ClusterShape(
            cpus=int(resources.get("CPU", 0)),
            gpus=int(resources.get("GPU", 0)),
            nodes=len(ray.nodes()),
            object_store_bytes=int(resources.get("object_store_memory", 0)),
        )
    finally:
        ray.shutdown()
