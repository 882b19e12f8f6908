"""The ``infotok`` command. One file per verb; this one only lists them and translates errors."""

from __future__ import annotations

import importlib
import logging
import sys
from typing import Any

import click

from pipelines.errors import PipelineError

__all__ = ["main"]

# verb -> (module, attribute): imported when called, so that `infotok --help` does not load torch.
_VERBS = {
    "run": ("jobs.run", "run"),
    "plan": ("jobs.run", "plan"),
    "analyse": ("jobs.run", "analyse"),
    "tokenise": ("jobs.run", "tokenise"),
    "validate": ("jobs.validate", "validate"),
    "inspect": ("jobs.inspect", "inspect"),
    "reconstruct": ("jobs.reconstruct", "reconstruct"),
    "parity": ("jobs.parity", "parity"),
    "train": ("jobs.train", "train"),
}

_EPILOG = """\b
Exit codes:
  0  done                      4  belongs to another run, or an earlier pass is missing
  1  failed, see the message   5  the watchdog saw no progress
  2  wrong usage or config   130  Ctrl-C
  3  does not add up         143  SIGTERM; the same command goes on from there
"""


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        module, attribute = _VERBS[cmd_name]
        return getattr(importlib.import_module(module), attribute)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401
        try:
            return super().invoke(ctx)
        except PipelineError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)


@click.command(cls=_Verbs, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="infotok", message="infotok %(version)s")
@click.option("-v", "--verbose", is_flag=True, help="Debug messages on stderr.")
def main(*, verbose: bool) -> None:
    """Turn a video corpus into an adaptive-length discrete-token corpus.

    Results go to stdout, progress and messages to stderr.
    """
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
