"""Where an evaluation goes, JSON, tables and pictures, and how it comes back from its JSON."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from jobs.options import typed
from jobs.reading import reading, require_writable
from pipelines.errors import PipelineError
from pipelines.evaluation.plots import require_plots, write_plots
from pipelines.evaluation.tables import evaluation_markdown
from schemas.evaluation import EvaluationReport

__all__ = ["EvaluationFiles", "read_evaluation"]

_WITH_JSON = {"from_json", "markdown", "plots"}
"""All that can be said beside ``--from-json``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationFiles:
    """What is written; None: that is not."""

    json_file: str | None
    """- is stdout, which has the tables otherwise."""
    markdown: Path | None
    plots: Path | None
    """A folder."""

    @staticmethod
    def of(options: dict[str, Any]) -> EvaluationFiles:
        """Those that were asked for.

        Raises:
            UsageError: If they could not be written, which is better said now than after hours.
        """
        files = EvaluationFiles(
            json_file=options["json_file"], markdown=options["markdown"], plots=options["plots"]
        )
        written = [Path(name) for name in (files.json_file, files.markdown) if name and name != "-"]
        # By their place, so that another spelling, or a link, is seen through.
        if len({path.resolve() for path in written}) < len(written):
            raise click.UsageError("--json and --markdown name the same file")
        for path in written:
            require_writable(path)
        if files.plots is not None:
            try:
                require_plots()
                files.plots.mkdir(parents=True, exist_ok=True)
            except (ValueError, OSError) as error:
                raise click.UsageError(str(error)) from error
        return files

    def write(self, report: EvaluationReport, *, commands: Sequence[str] = ()) -> None:
        """Write everything; tables with links to the pictures, if there are both.

        What cannot be written costs itself alone: it may have taken hours to measure.

        Args:
            commands: What was called beside the command that the report has.

        Raises:
            PipelineError: Afterwards, naming all that could not be written.
        """
        problems: list[str] = []
        if self.json_file != "-":
            click.echo(evaluation_markdown(report), nl=False)
        if self.json_file is not None:
            with _noted(problems, self.json_file), click.open_file(self.json_file, "wb") as file:
                file.write(report.to_bytes(indent=1))
        drawn: list[Path] = []
        if self.plots is not None:
            with _noted(problems, self.plots):
                drawn = write_plots(report, self.plots)
        for path in drawn:
            click.echo(f"drew {path}", err=True)
        if self.markdown is not None:
            folder = self.markdown.parent
            links = {path.stem: Path(os.path.relpath(path, folder)).as_posix() for path in drawn}
            text = evaluation_markdown(report, pictures=links, commands=commands)
            with _noted(problems, self.markdown):
                self.markdown.write_text(text, encoding="utf-8")
        if problems:
            raise PipelineError("; ".join(problems))


@contextlib.contextmanager
def _noted(problems: list[str], path: Path | str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        problems.append(f"{path} cannot be written: {error.strerror or error}")


def read_evaluation(path: Path, context: click.Context) -> EvaluationReport:
    """The evaluation of a JSON file that an earlier run wrote.

    Args:
        path: The file.
        context: Of the command, which can ask for nothing that would have to be measured.

    Raises:
        UsageError: If it does.
        PipelineError: If the file is no evaluation.
    """
    idle = [item for item in typed(context) if item.name not in _WITH_JSON]
    if idle:
        named = ", ".join(
            "INPUT" if isinstance(item, click.Argument) else item.opts[-1] for item in idle
        )
        raise click.UsageError(
            f"--from-json measures nothing, so it takes --markdown and --plots alone, not {named}"
        )
    with reading(str(path)):
        return EvaluationReport.from_bytes(path.read_bytes())
