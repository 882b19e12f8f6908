"""What ``plan``, ``analyse``, ``tokenise`` and ``run`` refuse, they refuse without a trace."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from jobs.cli import main


@pytest.mark.parametrize("verb", ["plan", "analyse", "run"])
def test_an_input_that_is_not_there_leaves_no_output_behind(verb: str, tmp_path: Path):
    result = CliRunner().invoke(main, [verb, str(tmp_path / "nosuch"), str(tmp_path / "out")])
    assert (result.exit_code, result.output) == (
        1,
        f"error: input {tmp_path / 'nosuch'} does not exist\n",
    )
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_is_not_there_leaves_no_output_behind(videos: Path, tmp_path: Path):
    arguments = ["plan", str(videos), str(tmp_path / "out"), "--checkpoint", "nosuch"]
    result = CliRunner().invoke(main, arguments)
    assert "checkpoint nosuch: does not exist" in result.output
    assert list(tmp_path.iterdir()) == []


def test_pass_two_without_a_plan_makes_nothing(tmp_path: Path):
    result = CliRunner().invoke(main, ["tokenise", str(tmp_path / "out")])
    assert result.exit_code == 4
    assert "holds no plan" in result.output
    assert list(tmp_path.iterdir()) == []
