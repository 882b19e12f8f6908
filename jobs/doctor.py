"""``infotok doctor``: would a run work here, and if not, what is to be done?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click
import ray
import torch

from jobs.cluster import has_autoscaler, join_cluster, named_cluster
from jobs.machine import usable_cpus
from jobs.options import config_from, configuration_options, work_option
from pipelines.config import RunConfig
from pipelines.doctor import ClusterShape, examine
from pipelines.errors import PipelineError
from pipelines.findings import Finding, Verdict, bad
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
    for finding in _findings(config, input_url, stores):
        found.append(finding)
        if not as_json:
            click.echo(_line(finding))
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in found], indent=1))
    if any(finding.verdict is Verdict.BAD for finding in found):
        raise SystemExit(PipelineError.exit_code)


def _findings(
    config: RunConfig, input_url: str | None, stores: dict[str, Store]
) -> Iterator[Finding]:
    shape = None
    try:
        shape = _shape(named_cluster())
    except PipelineError as error:
        yield bad("cluster", str(error), "mend RAY_ADDRESS; the rest was looked at without it")
    yield from examine(config, shape, source=input_url, stores=stores)


def _line(finding: Finding) -> str:
    line = f"{finding.verdict:5} {finding.name:14} {finding.what}"
    return f"{line}\n{'':21}-> {finding.advice}" if finding.advice else line


def _shape(address: str | None) -> ClusterShape:
    if address is None:
        # What a local Ray would find.
        return ClusterShape(cpus=usable_cpus(), gpus=torch.cuda.device_count(), nodes=1)
    join_cluster(address, log_to_driver=False)
    try:
        resources = ray.cluster_resources()
        return ClusterShape(
            cpus=int(resources.get("CPU", 0)),
            gpus=int(resources.get("GPU", 0)),
            # Those that are gone are listed, too.
            nodes=sum(node["Alive"] for node in ray.nodes()),
            object_store_bytes=int(resources.get("object_store_memory", 0)),
            autoscaled=has_autoscaler(),
        )
    finally:
        ray.shutdown()
