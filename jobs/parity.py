"""``infotok parity``: compare this implementation with golden arrays of the published one."""

from __future__ import annotations

import click

from infotok_core.errors import CheckpointError
from infotok_core.golden import read_golden
from infotok_core.parity import LIMIT, StageSummary, check_golden, summarise

__all__ = ["parity"]


@click.command()
@click.option(
    "--golden",
    "prefix",
    required=True,
    metavar="PREFIX",
    help="Path before .npz, .json and .safetensors.",
)
def parity(prefix: str) -> None:
    """Recompute every array of a golden set and print, per stage, how far off it is.

    Exits with 1 when an error passes the limit, a token or mask bit differs, or an array has a
    name that means nothing to this version; with 2 when the set cannot be read.
    """
    try:
        golden = read_golden(prefix)
    except (CheckpointError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    comparisons = check_golden(golden)
    click.echo(f"{'stage':44} {'arrays':>6} {'max abs error':>14}  differing")
    for summary in summarise(comparisons):
        click.echo(_line(summary))
    failed = [c.name for c in comparisons if not c.passed]
    for what in ("tokens", "mask bits", "pixels", "unknown"):
        number = sum(c.num_different for c in comparisons if c.kind == what)
        click.echo(f"differing {what}: {number}")
    if failed:
        click.echo(f"FAILED {len(failed)} of {len(comparisons)} arrays: {', '.join(failed)}")
        raise SystemExit(1)
    click.echo(f"passed: {len(comparisons)} arrays within {LIMIT:g}")


def _line(summary: StageSummary) -> str:
    error = f"{summary.max_error:.2e}"
    differing = f"{summary.num_different}/{summary.size} {summary.kind}"
    # Rounding makes values differ in the last bits; only for the rest is the count a result.
    shown = "" if summary.kind == "values" else differing
    mark = "" if summary.passed else "  FAILED"
    return f"{summary.stage:44} {summary.num_arrays:6} {error:>14}  {shown}{mark}".rstrip()
