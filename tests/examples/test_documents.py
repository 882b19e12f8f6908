"""The commands of every page: they are taken, and something runs each of them for real.

docs/recipes.md is stricter with itself, see `test_deploy`; what a page says of its figures was run
by hand, and stands beside them with machine and date.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from jobs.cli import main
from jobs.config import load_config

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TRIED = {
    "analyse": "e2e/test_second_pass.py",
    "append": "e2e/test_growing.py",
    "doctor": "jobs/test_doctor.py",
    "estimate": "jobs/test_estimate.py",
    "evaluate": "jobs/test_evaluate.py",
    "export": "jobs/test_export_command.py",
    "inspect": "jobs/test_inspect_command.py",
    "merge": "pipelines/test_merging.py",
    "parity": "jobs/test_parity.py",
    "plan": "pipelines/test_unreachable.py",
    "reconstruct": "jobs/test_reconstruct.py",
    "report": "jobs/test_report_command.py",
    "retry-failed": "e2e/test_growing.py",
    "run": "e2e/runs.py",
    "tokenise": "e2e/test_second_pass.py",
    "train": "jobs/test_train_command.py",
    "validate": "jobs/test_validate_command.py",
}
"""Which test runs a command."""


def commands() -> list[str]:
    """Everything in the pages that begins like a command line, in a block or in a sentence."""
    found: dict[str, None] = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
        lines = [line for b in blocks for line in b.replace("\\\n", "").splitlines()]
        prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
        spans = (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose))
        for line in (*lines, *spans):
            if re.match(r"(\w+=\S+ )*(infotok|python|torchrun) ", line):
                found[line.split(" && ")[0].strip()] = None
    return list(found)


def words_of(line: str) -> list[str]:
    """The words without comments, assignments, and the brackets of what may be left out."""
    words = shlex.split(line, comments=True)
    return [word.strip("[]") for word in words if word not in ("…", "...") and "=" not in word[:20]]


CONTEXT = click.Context(main)
OURS = [line for line in commands() if re.search(r"\binfotok |-m jobs ", line)]
SCRIPTS = [line for line in commands() if re.match(r"python \S+\.py", line)]


def test_the_pages_hold_commands():
    assert len(OURS) > 25
    assert len(SCRIPTS) > 5


@pytest.mark.parametrize("line", OURS)
def test_a_command_and_its_options_are_there(line: str):
    words = words_of(line)
    name, *rest = words[next(i for i, w in enumerate(words) if w in ("infotok", "jobs")) + 1 :]
    command = main.get_command(CONTEXT, name)
    assert command is not None
    known = {option for parameter in command.params for option in parameter.opts}
    known |= {option for parameter in command.params for option in parameter.secondary_opts}
    assert [word for word in rest if word.startswith("-") and word not in known] == []
    load_config(None, re.findall(r"--set (\S+=\S+)", line), {})


@pytest.mark.parametrize("line", SCRIPTS)
def test_a_script_and_its_options_are_there(line: str):
    script, *rest = words_of(line)[1:]
    text = (ROOT / script).read_text(encoding="utf-8")
    assert [word for word in rest if word.startswith("--") and f'"{word}"' not in text] == []


def test_every_command_is_run_by_a_test():
    assert set(TRIED) == set(main.list_commands(CONTEXT))
    for command, path in TRIED.items():
        assert re.search(rf"\b{command}\b", (TESTS / path).read_text(encoding="utf-8")), command
