"""Options that several verbs share."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from jobs.config import load_config
from pipelines.config import RunConfig

__all__ = [
    "FiniteRange",
    "config_from",
    "configuration_options",
    "refuse_idle",
    "typed",
    "work_option",
]

_STORES = ("source_storage", "output_storage")


class FiniteRange(click.FloatRange):
    """A `click.FloatRange` that takes neither NaN, which no comparison finds, nor infinity."""

    def convert(
        self,
        value: Any,  # noqa: ANN401  of click
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        """See `click.ParamType.convert`."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def configuration_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--config --set --endpoint-url --profile --checkpoint --single-writer``."""
    decorators = [
        click.option(
            "--config", "config_file", type=click.Path(path_type=Path, dir_okay=False),
            help="TOML file; see examples/run.toml for every key and its default.",
        ),
        click.option(
            "--set", "assignments", multiple=True, metavar="TABLE.KEY=VALUE",
            help="Override one key; repeatable.",
        ),
        click.option("--endpoint-url", help="S3 endpoint of both input and output."),
        click.option("--profile", help="AWS profile for both input and output."),
        click.option(
            "--checkpoint",
            help="'default', a checkpoint directory, a published .pt file, or a directory of "
            "encoder.jit and decoder.jit.",
        ),
        click.option(
            "--single-writer", is_flag=True, default=None,
            help="Start although the store ignores conditional writes.",
        ),
    ]  # fmt: skip
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


def work_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--work``."""
    return click.option("--work", help="Work folder; default OUTPUT/_work.")(command)


def config_from(options: dict[str, Any], **overrides: Any) -> RunConfig:  # noqa: ANN401
    """Build the configuration from parsed options; consumes those of `configuration_options`."""
    endpoint, profile = options.pop("endpoint_url"), options.pop("profile")
    for store in _STORES:
        overrides[f"{store}.endpoint_url"] = endpoint
        overrides[f"{store}.profile"] = profile
    overrides["tokenizer.checkpoint"] = options.pop("checkpoint")
    overrides["runtime.single_writer"] = options.pop("single_writer")
    return load_config(options.pop("config_file"), options.pop("assignments"), overrides)


def typed(context: click.Context) -> list[click.Parameter]:
    """The arguments and options of a command that stood on its command line."""
    return [
        item
        for item in context.command.params
        if context.get_parameter_source(item.name) == ParameterSource.COMMANDLINE
    ]


def refuse_idle(names: Collection[str], why: str) -> None:
    """Say of options of this command that were typed, but would change nothing, why that is.

    Args:
        names: Of their variables.

    Raises:
        UsageError: If there are any.
    """
    idle = [item.opts[0] for item in typed(click.get_current_context()) if item.name in names]
    if idle:
        raise click.UsageError(f"{', '.join(idle)}: {why}")
