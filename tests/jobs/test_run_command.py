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


@pytest.mark.parametrize("verb", ["plan", "analyse", "run"])
@pytest.mark.parametrize("work", ["out/_work", "deep/er/work"])
def test_an_input_without_a_video_leaves_no_output_behind(verb: str, work: str, tmp_path: Path):
    (tmp_path / "in" / "empty").mkdir(parents=True)
    (tmp_path / "in" / ".hidden.mp4").touch()
    places = [str(tmp_path / name) for name in ("in", "out")]
    result = CliRunner().invoke(main, [verb, *places, "--work", str(tmp_path / work)])
    assert (result.exit_code, result.output) == (
        1,
        f"error: no objects to tokenise in {tmp_path / 'in'} (see source.include)\n",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_an_input_without_a_video_leaves_an_output_as_it_was(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    result = CliRunner().invoke(main, ["run", str(tmp_path / "in"), str(tmp_path / "out")])
    assert "no objects to tokenise" in result.output
    assert list((tmp_path / "out").iterdir()) == []


def test_pass_two_before_pass_one_is_finished_makes_no_output(videos: Path, tmp_path: Path):
    work = ["--work", str(tmp_path / "work")]
    planned = CliRunner().invoke(main, ["plan", str(videos), str(tmp_path / "one"), *work])
    assert planned.exit_code == 0, planned.output
    result = CliRunner().invoke(main, ["tokenise", str(tmp_path / "two" / "three"), *work])
    assert result.exit_code == 4
    assert "finish pass one" in result.output
    assert not (tmp_path / "two").exists()


def test_a_checkpoint_that_is_not_there_leaves_no_output_behind(videos: Path, tmp_path: Path):
    arguments = ["plan", str(videos), str(tmp_path / "out"), "--checkpoint", "nosuch"]
    result = CliRunner().invoke(main, arguments)
    assert "checkpoint nosuch: does not exist" in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_half_precision_on_a_cpu_leaves_no_plan_behind(verb: str, videos: Path, tmp_path: Path):
    # A plan is bound to the precision: the same command without it would have been refused, too.
    settings = ["--set", "tokenizer.dtype=bfloat16", "--set", "tokenizer.device=cpu"]
    result = CliRunner().invoke(main, [verb, str(videos), str(tmp_path / "out"), *settings])
    assert result.exit_code == 1
    assert "bfloat16 needs a GPU" in result.output
    assert list(tmp_path.iterdir()) == []


def test_pass_two_without_a_plan_makes_nothing(tmp_path: Path):
    result = CliRunner().invoke(main, ["tokenise", str(tmp_path / "out")])
    assert result.exit_code == 4
    assert "holds no plan" in result.output
    assert list(tmp_path.iterdir()) == []
