"""What ``infotok train`` refuses, in a sentence, and before the work."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from click.testing import Result
from training_runs import (
    BASE,
    DATA,
    ELBO,
    NETWORK,
    RECIPE,
    fingerprint,
    log,
    start,
    train,
)

STEP = "[[stage]]\nsteps = 1\n"


@pytest.mark.ray
@pytest.mark.slow
def test_more_workers_than_this_machine_has_places_for_are_not_waited_for(
    videos: Path, tmp_path: Path
):
    many = RECIPE.replace("batch_size = 2", "batch_size = 4096")
    process = start(videos, tmp_path / "out", "--workers", "4096", recipe=many)
    process.communicate(timeout=100)
    assert process.returncode == 1
    last = (tmp_path / "out.err").read_text().splitlines()[-1]
    assert last.startswith("error: --workers 4096 takes as many CPUs, and there are ")


def test_another_recipe_into_the_same_folder_is_refused(
    trained: tuple[Path, Result], videos: Path, tmp_path: Path
):
    copy = tmp_path / "checkpoint"
    shutil.copytree(trained[0], copy)
    result = train(videos, copy, RECIPE.replace("steps = 8", "steps = 9"))
    assert result.exit_code == 4
    assert "recipe changed" in result.stderr.splitlines()[-1]
    assert log(copy) == log(trained[0])


def test_an_input_that_holds_nothing_is_named_as_it_was_asked_for(videos: Path, tmp_path: Path):
    result = train(videos / "broken.mp4", tmp_path / "out")
    assert "broken.mp4: no video holds 5 frames of 16x16" in result.stderr.splitlines()[-1]
    (tmp_path / "list.csv").write_text("uri\n")
    result = train(tmp_path / "list.csv", tmp_path / "out")
    assert "list.csv has no rows" in result.stderr.splitlines()[-1]
    (tmp_path / "empty").mkdir()
    result = train(tmp_path / "empty", tmp_path / "out")
    assert "empty holds no videos to train on" in result.stderr.splitlines()[-1]
    result = train(videos, tmp_path / "out", RECIPE, "--validation", videos / "broken.mp4")
    assert "broken.mp4 holds no window of 33 frames" in result.stderr.splitlines()[-1]
    result = train(videos, tmp_path / "out", RECIPE, "--max-minutes", "nan")
    assert "nan is not a finite number" in result.stderr.splitlines()[-1]


def test_other_clips_of_the_same_videos_are_another_run(
    trained: tuple[Path, Result], videos: Path, tmp_path: Path
):
    copy = tmp_path / "checkpoint"
    shutil.copytree(trained[0], copy)
    for option, named in (("window.fps=7", "fps"), ("limits.max_frames=30", "limits")):
        result = train(videos, copy, RECIPE, "--set", option)
        assert result.exit_code == 4
        assert f"{named} changed" in result.stderr.splitlines()[-1]


def test_a_checkpoint_is_not_trained_over(
    trained: tuple[Path, Result], videos: Path, tmp_path: Path
):
    copy = tmp_path / "checkpoint"
    shutil.copytree(trained[0], copy)
    shutil.rmtree(copy / "training")
    result = train(videos, copy, RECIPE, "--init", copy)
    assert result.exit_code == 1
    assert "holds a checkpoint" in result.stderr.splitlines()[-1]
    assert fingerprint(copy) == fingerprint(trained[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set", "window.frames=17"), "--set window.frames is not for training"),
        (("--set", "tokenizer.dtype=float16"), "everything else is said by the recipe"),
        (("--validation-windows", "0"), "--validation-windows"),
        (
            ("--validation-windows", "5"),
            "--validation-windows: there is no --validation to take them from",
        ),
        (("--single-writer",), "--single-writer is not for training"),
        (("--max-minutes", "-1"), "--max-minutes"),
        (
            ("--perceptual", __file__),
            "--perceptual: no stage has a perceptual_weight",
        ),
        (("--workers", "3"), "--workers 3: stage 1: batch_size 2 is not a multiple of 3"),
    ],
)
def test_options_that_would_do_nothing_are_wrong_usage(
    videos: Path, tmp_path: Path, options: tuple[str, ...], message: str
):
    result = train(videos, tmp_path / "out", RECIPE, *options)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("", "there is no [[stage]]"),
        ("stage = []", "there is no [[stage]]"),
        ("stage = 3", "stage must be tables"),
        ("[[stage]\n", "recipe.toml"),
        ("[[stage]]\nframes = 5\n", "steps"),
        (STEP + "frams = 5\n", "recipe.toml: stage 1: unknown keys ['frams']"),
        (STEP + "rates = [2.0]\n", "rates must lie in (0, 1]"),
        (STEP + "rates = 0.5\n", "rates must be a list of numbers"),
        ("[stages]\n", "unknown tables ['stages']"),
        ("[data]\nmemori = 1\n" + STEP, "recipe.toml: data: unknown keys ['memori']"),
        ("[data]\nsize = 'x'\n" + STEP, "data.size must be a whole number"),
        ("[network]\nchanels = 1\n" + STEP, "recipe.toml: network: unknown keys ['chanels']"),
        ("[network]\nchannels = 'x'\n" + STEP, "network.channels must be a whole number"),
        ("[network]\ntransformer = 3\n" + STEP, "network.transformer must be a table"),
        ("network = 3\n" + STEP, "network must be a table"),
        ("[network.transformer]\nheds = 1\n" + STEP, "network.transformer: unknown keys ['heds']"),
    ],
)  # fmt: skip
def test_a_recipe_that_makes_no_sense_is_wrong_usage(
    videos: Path, tmp_path: Path, recipe: str, message: str
):
    result = train(videos, tmp_path / "recipe", recipe)
    assert result.exit_code == 2, result.output
    assert message in result.stderr


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (BASE + ELBO + "perceptual_weight = 0.1\n", "--perceptual"),
        (BASE + ELBO.replace("crop = 32", "crop = 80"), "stage 2, size 64: a crop of 80"),
        (BASE + ELBO.replace("crop = 32", "crop = 20"), "stage 2: crop must be a multiple of 8"),
        (BASE + ELBO.replace("frames = 5", "frames = 6"), "stage 2: frames must be 1 + 4k"),
        (BASE + BASE.replace("base", "latent_router"), "stage 2: the stage trains a latent router"),
        (BASE.replace("frames = 5", "frames = 65"), "no video holds 65 frames of 16x16"),
    ],
)
def test_stages_that_do_not_fit_are_a_sentence_before_any_training(
    videos: Path, tmp_path: Path, stages: str, message: str
):
    result = train(videos, tmp_path / "out", NETWORK + DATA + stages)
    assert result.exit_code == 1, result.output
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert message in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--init", "no-such-checkpoint"), "no-such-checkpoint"),
        (("--validation", "no-such-folder"), "input no-such-folder does not exist"),
    ],
)
def test_what_is_not_there_is_a_sentence(
    videos: Path, tmp_path: Path, options: tuple[str, ...], message: str
):
    result = train(videos, tmp_path / "out", RECIPE, *options)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert message in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("embeddings", "options", "message"),
    [
        ("max_frames = 1", (), "stage 1: grid (2, 2, 2) exceeds the embeddings: 1 frames"),
        ("max_positions = 1", (), "stage 1: grid (2, 2, 2) exceeds the embeddings"),
        (
            "max_frames = 2",
            ("--validation",),
            "--validation: grid (9, 8, 8) exceeds the embeddings",
        ),
    ],
)
def test_windows_beyond_the_embeddings_are_a_sentence_before_any_training(
    videos: Path, tmp_path: Path, embeddings: str, options: tuple[str, ...], message: str
):
    network = NETWORK.replace("heads = 2", f"heads = 2\n{embeddings}")
    stage = BASE.replace('"base"', '"all"')
    named = [item for option in options for item in (option, videos)]
    result = train(videos, tmp_path / "out", network + DATA + stage, *named)
    assert result.exit_code == 1, result.output
    assert message in result.stderr.splitlines()[-1]


def test_weights_that_leave_all_bounds_end_in_a_sentence(videos: Path, tmp_path: Path):
    stage = ELBO.replace("warmup_steps = 1", "warmup_steps = 1\nlearning_rate = 1e6")
    result = train(videos, tmp_path / "out", NETWORK + DATA + stage)
    assert result.exit_code == 1
    assert "by step" in result.stderr.splitlines()[-1]
    # One step, whose loss is still a number.
    result = train(videos, tmp_path / "one", NETWORK + DATA + stage.replace("= 8", "= 1"))
    assert result.exit_code == 1
    assert "weights not finite in float16" in result.stderr.splitlines()[-1]


def test_weights_of_another_network_are_named(videos: Path, tmp_path: Path):
    (tmp_path / "vgg.pth").write_bytes(b"nothing")
    recipe = RECIPE + "perceptual_weight = 0.1\n"
    result = train(videos, tmp_path / "out", recipe, "--perceptual", tmp_path / "vgg.pth")
    assert result.exit_code == 1
    assert "vgg.pth" in result.stderr.splitlines()[-1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_a_sentence(videos: Path, tmp_path: Path):
    result = train(videos, tmp_path / "out", RECIPE, "--device", "cuda")
    assert result.exit_code == 1
    assert "there is no GPU here" in result.stderr
