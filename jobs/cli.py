"""The ``infotok`` command. One file per verb; this one only lists them and translates errors."""

from __future__ import annotations

import errno
import importlib
import logging
import os
import signal
import sys
from typing import Any

import click

from pipelines.errors import PipelineError

__all__ = ["main"]

log = logging.getLogger(__name__)

# verb -> (module, summary). A module is imported when its verb is called: `infotok --help` takes
# 0.1 s, and 8 s if it has to load torch and Ray for the summaries.
_VERBS = {
    "doctor": ("jobs.doctor", "Before a run: would it work here?"),
    "run": ("jobs.run", "Tokenise a video corpus: all of the next three."),
    "plan": ("jobs.run", "List the input and fix names, order and shards."),
    "analyse": ("jobs.run", "Pass one: decode and encode every video."),
    "tokenise": ("jobs.run", "Pass two: stored analyses to token shards, at any rate."),
    "estimate": ("jobs.estimate", "What a corpus will come to, from a sample of it."),
    "append": ("jobs.grow", "Add new videos to a finished corpus, as a new generation."),
    "retry-failed": ("jobs.grow", "Try the quarantined videos of a corpus again."),
    "merge": ("jobs.grow", "Put several corpora together to one."),
    "validate": ("jobs.validate", "Read a corpus back and check all that it says of itself."),
    "inspect": ("jobs.inspect", "Show a corpus, a work folder, or an object of either."),
    "reconstruct": ("jobs.reconstruct", "Decode tokens to video."),
    "report": ("jobs.report", "Write a page about a corpus, with its videos playing."),
    "parity": ("jobs.parity", "Compare the network with the published one."),
    "export": ("jobs.export", "Write a checkpoint as TorchScript or torch.export programs."),
    "train": ("jobs.train", "Train a tokenizer and write its checkpoint."),
    "evaluate": ("jobs.evaluate", "Measure a tokenizer and its router, rate by rate."),
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
        # Read when ray is imported: else a thread of Ray Data that outlives the end of a run, after
        # a stop or from the watchdog, would start another Ray.
        os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
        module, _ = _VERBS[cmd_name]
        return getattr(importlib.import_module(module), cmd_name.replace("-", "_"))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, summary) for verb, (_, summary) in _VERBS.items()])

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401
        try:
            return super().invoke(ctx)
        except PipelineError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)
        except OSError as error:
            if error.errno == errno.EPIPE:
                # Nobody reads what is printed: click ends in silence.
                raise
            # A disk or a store failed and its client gave up: nothing that a traceback would tell.
            log.debug("", exc_info=True)
            click.echo(f"error: {error}", err=True)
            ctx.exit(PipelineError.exit_code)
        except KeyboardInterrupt:
            # Before a run has its Ray, and in the verbs that have none.
            click.echo("error: stopped as asked", err=True)
            ctx.exit(128 + signal.SIGINT)


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
