"""A training run that is stopped, killed or asked for twice."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from click.testing import Result
from training_runs import (
    BASE,
    DATA,
    NETWORK,
    RECIPE,
    fingerprint,
    log,
    start,
    train,
    wait_for,
)

from pipelines.config import RunConfig
from pipelines.errors import InterruptedRunError
from pipelines.training_recipe import load_recipe
from pipelines.training_run import TrainingJob, run_training


def test_the_same_command_again_does_nothing_more(
    trained: tuple[Path, Result], videos: Path, tmp_path: Path
):
    output, first = trained
    copy = tmp_path / "checkpoint"
    shutil.copytree(output, copy)
    again = train(videos, copy, RECIPE, "--validation", videos)
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout) == json.loads(first.stdout)
    assert log(copy) == log(output)


def test_a_run_that_is_stopped_again_and_again_ends_as_if_it_never_was(
    trained: tuple[Path, Result], videos: Path, tmp_path: Path
):
    output = tmp_path / "out"
    for _ in range(3):
        # Ends with its first report.
        stopped = train(videos, output, RECIPE, "--max-minutes", "0")
        assert stopped.exit_code == 0, stopped.output
        assert json.loads(stopped.stdout)["finished"] is False
    assert train(videos, output).exit_code == 0
    assert log(output) == log(trained[0])
    assert fingerprint(output) == fingerprint(trained[0])


def test_a_stop_is_heard_before_the_first_step_and_while_it_measures(videos: Path, tmp_path: Path):
    heard: list[str] = []
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(NETWORK + DATA + BASE)
    job = TrainingJob(
        input_url=str(videos), output=tmp_path / "out", validation=str(videos),
        recipe=load_recipe(recipe),
        config=RunConfig(),
    )  # fmt: skip

    def run(stops_at: str) -> None:
        heard.clear()
        run_training(
            job, device=torch.device("cpu"), say=heard.append,
            should_stop=lambda: any(stops_at in line for line in heard),
        )  # fmt: skip

    with pytest.raises(InterruptedRunError):
        run("step 2/2")
    assert not any("psnr_db" in line for line in heard)
    run("nothing stops it")
    assert "going on from stage 1, step 2" in heard
    assert "psnr_db" in heard[-1]


def test_a_run_that_left_no_state_starts_over_with_an_empty_log(
    trained: tuple[Path, Result], videos: Path, tmp_path: Path
):
    output = tmp_path / "out"
    train(videos, output, RECIPE, "--max-minutes", "0")
    (output / "training" / "state.pt").unlink()
    assert train(videos, output).exit_code == 0
    assert log(output) == log(trained[0])


def test_a_killed_run_ends_as_if_it_never_was(
    trained: tuple[Path, Result], videos: Path, tmp_path: Path
):
    output = tmp_path / "out"
    process = start(videos, output)
    wait_for(process, output, '"stage": 2, "step": 3,')
    process.kill()
    process.communicate()
    assert len(log(output)) < len(log(trained[0]))
    result = train(videos, output)
    assert result.exit_code == 0, result.output
    assert "going on from stage 1, step 2" in result.stderr
    assert log(output) == log(trained[0])
    assert fingerprint(output) == fingerprint(trained[0])


@pytest.mark.ray
@pytest.mark.slow
def test_a_stop_that_goes_to_ray_as_well_is_quick(videos: Path, tmp_path: Path):
    output = tmp_path / "out"
    endless = NETWORK + DATA + BASE.replace("steps = 2", "steps = 100_000")
    process = start(videos, output, "--workers", "2", recipe=endless)
    try:
        # Ray hands on what a worker says a little later than the worker logs it.
        wait_for(process, output, '"step": 3,')
        while "step 3/100000" not in output.with_suffix(".err").read_text():
            assert process.poll() is None
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGTERM)
        since = time.monotonic()
        process.communicate(timeout=100)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    said = output.with_suffix(".err").read_text()
    assert process.returncode == 143, said
    assert time.monotonic() - since < 25
    assert said.splitlines()[-1].startswith("error: stopped"), said
    assert "step 3/100000" in said


def test_after_a_start_that_came_to_nothing_the_recipe_may_change(videos: Path, tmp_path: Path):
    output = tmp_path / "out"
    assert train(videos, output, RECIPE.replace("crop = 32", "crop = 20")).exit_code == 1
    result = train(videos, output, NETWORK + DATA + BASE)
    assert result.exit_code == 0, result.output


def test_a_resume_with_other_threads_is_told_of(videos: Path, tmp_path: Path):
    output, recipe = tmp_path / "out", NETWORK + DATA + BASE
    train(videos, output, recipe, "--max-minutes", "0")
    torch.set_num_threads(2)
    # One step: two threads of a network as small as this wait for each other most of the time.
    result = train(videos, output, recipe)
    torch.set_num_threads(1)
    assert result.exit_code == 0, result.output
    assert "note: threads 1, now 2: the last bits of what follows may differ" in result.stderr


@pytest.mark.parametrize("line", ['{"stage": 2, "st', "[1]", "null", "\udcff"])
def test_a_log_line_cut_short_is_dropped(
    trained: tuple[Path, Result], videos: Path, tmp_path: Path, line: str
):
    copy = tmp_path / "checkpoint"
    shutil.copytree(trained[0], copy)
    with (copy / "training" / "log.jsonl").open("a", errors="surrogateescape") as file:
        file.write(line)
    assert train(videos, copy, RECIPE).exit_code == 0
    assert log(copy) == log(trained[0])
