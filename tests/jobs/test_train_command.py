"""``infotok train`` from videos to a checkpoint that can be used, in seconds on a CPU."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from programs import write_fsq_programs
from videos import write_video

from infotok_core.config import TokenizerConfig
from infotok_core.opening import open_tokenizer
from infotok_core.tokenizer import Tokenizer
from jobs.cli import main
from pipelines.config import RunConfig
from pipelines.errors import InterruptedRunError
from pipelines.training_recipe import load_recipe
from pipelines.training_run import TrainingJob, run_training

ROOT = Path(__file__).parents[2]
NETWORK = """
[network]
channels = 4
channels_mult = [1, 2, 2]
num_res_blocks = 1
patch_size = 2
z_channels = 16

[network.transformer]
hidden = 24
mlp_hidden = 32
encoder_layers = 1
decoder_layers = 1
heads = 2
"""
DATA = """
[data]
size = 64
memory = "always"
"""
BASE = """
[[stage]]
part = "base"
frames = 5
crop = 16
batch_size = 2
steps = 2
warmup_steps = 1
log_every = 1
"""
ELBO = """
[[stage]]
router = "elbo"
frames = 5
crop = 32
batch_size = 2
steps = 8
rates = [0.5]
warmup_steps = 1
log_every = 1
"""
STEP = "[[stage]]\nsteps = 1\n"
RECIPE = NETWORK + DATA + BASE + ELBO


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "a.mp4", 40)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def arguments(videos: Path, output: Path, recipe: str, *options: str | Path) -> list[str]:
    path = output.with_suffix(".toml")
    path.write_text(recipe)
    command = ("train", videos, output, "--recipe", path, "--device", "cpu", *options)
    return [str(item) for item in command]


def train(videos: Path, output: Path, recipe: str = RECIPE, *options: str | Path) -> Result:
    return CliRunner().invoke(main, arguments(videos, output, recipe, *options))


def start(videos: Path, output: Path, *options: str, recipe: str = RECIPE) -> subprocess.Popen[str]:
    """The command in a process group of its own; what it says goes to a file beside its output."""
    with output.with_suffix(".err").open("w") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "jobs", *arguments(videos, output, recipe, *options)],
            cwd=ROOT,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        )


def wait_for(process: subprocess.Popen[str], output: Path, logged: str) -> None:
    path = output / "training" / "log.jsonl"
    deadline = time.monotonic() + 200
    while not (path.exists() and logged in path.read_text()):
        assert process.poll() is None, output.with_suffix(".err").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def log(output: Path) -> list[tuple[Any, ...]]:
    path = output / "training" / "log.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [(line["stage"], line["step"], line.get("loss")) for line in lines]


def fingerprint(output: Path) -> str:
    return json.loads((output / "config.json").read_text())["fingerprint"]


@pytest.fixture(scope="module")
def trained(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """What a run gives that nobody disturbs."""
    output = tmp_path_factory.mktemp("trained") / "checkpoint"
    card = output.with_name("card.md")
    card.write_text("# My tokenizer\n")
    return output, train(videos, output, RECIPE, "--validation", videos, "--card", card)


def test_it_writes_a_checkpoint_that_tokenises(trained: tuple[Path, Result]):
    output, result = trained
    assert result.exit_code == 0, result.output
    tokenizer = Tokenizer.load(output)
    assert tokenizer.fingerprint == json.loads(result.stdout)["fingerprint"]
    analysis = tokenizer.analyse(torch.zeros(1, 5, 32, 32, 3, dtype=torch.uint8))
    assert analysis.codes_Bthw.shape == (1, 2, 4, 4)
    assert torch.isfinite(analysis.information_Bthw).all()


def test_it_tells_losses_psnr_and_shows_samples(trained: tuple[Path, Result]):
    output, result = trained
    base, whole = json.loads(result.stdout)["stages"]
    assert (base["stage"], base["steps"], set(base["psnr_db"])) == (1, 2, {"1.0"})
    assert (whole["stage"], whole["steps"]) == (2, 8)
    assert set(whole["psnr_db"]) == {"1.0", "0.75", "0.5", "0.25"}
    lines = log(output)
    assert [line[:2] for line in lines if line[2] is None] == [(1, 2), (2, 8)]
    assert [line[:2] for line in lines if line[2] is not None] == [
        *((1, step) for step in (1, 2)), *((2, step) for step in range(1, 9)),
    ]  # fmt: skip
    assert "step 8/8" in result.stderr
    assert {path.name for path in (output / "training" / "samples").iterdir()} == {
        "stage1.png", "stage2.png",
    }  # fmt: skip


def test_a_broken_video_is_named_and_left_out(
    videos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level("WARNING"):
        assert train(videos, tmp_path / "out", NETWORK + DATA + BASE).exit_code == 0
    assert "broken.mp4 is left out: NOT_A_VIDEO" in caplog.text


def test_the_card_holds_the_text_given_and_the_record(trained: tuple[Path, Result]):
    card = (trained[0] / "README.md").read_text()
    assert card.startswith("# My tokenizer\n")
    assert '"psnr_db"' in card


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
    job = TrainingJob(
        input_url=str(videos), output=tmp_path / "out", validation=str(videos),
        recipe=load_recipe(_written(tmp_path / "recipe.toml", NETWORK + DATA + BASE)),
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
def test_two_workers_of_ray_train_what_one_process_trains(
    trained: tuple[Path, Result], videos: Path, tmp_path: Path
):
    output = tmp_path / "out"
    process = start(videos, output, "--workers", "2")
    stdout, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output.with_suffix(".err").read_text()[-3000:]
    assert json.loads(stdout)["finished"] is True
    assert "Failed to query" not in output.with_suffix(".err").read_text()
    ours, theirs = ([line for line in log(folder) if line[2]] for folder in (output, trained[0]))
    assert [line[:2] for line in ours] == [line[:2] for line in theirs]
    assert [line[2] for line in ours] == pytest.approx([line[2] for line in theirs], rel=1e-3)


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


def test_another_recipe_into_the_same_folder_is_refused(
    trained: tuple[Path, Result], videos: Path, tmp_path: Path
):
    copy = tmp_path / "checkpoint"
    shutil.copytree(trained[0], copy)
    result = train(videos, copy, RECIPE.replace("steps = 8", "steps = 9"))
    assert result.exit_code == 4
    assert "recipe changed" in result.stderr.splitlines()[-1]
    assert log(copy) == log(trained[0])


def test_an_output_inside_the_videos_is_none_of_them(videos: Path, tmp_path: Path):
    shutil.copytree(videos, tmp_path / "videos")
    output = tmp_path / "videos" / "out"
    for _ in range(2):
        result = train(tmp_path / "videos", output, NETWORK + DATA + BASE, "--validation", videos)
        assert result.exit_code == 0, result.output


def test_an_input_that_holds_nothing_is_named_as_it_was_asked_for(videos: Path, tmp_path: Path):
    result = train(videos / "broken.mp4", tmp_path / "out")
    assert "broken.mp4: no video holds 5 frames of 16x16" in result.stderr.splitlines()[-1]
    (tmp_path / "list.csv").write_text("uri\n")
    result = train(tmp_path / "list.csv", tmp_path / "out")
    assert "list.csv holds no videos to train on" in result.stderr.splitlines()[-1]
    result = train(videos, tmp_path / "out", RECIPE, "--validation", videos / "broken.mp4")
    assert "broken.mp4 holds no window of 33 frames" in result.stderr.splitlines()[-1]


def test_after_a_start_that_came_to_nothing_the_recipe_may_change(videos: Path, tmp_path: Path):
    output = tmp_path / "out"
    assert train(videos, output, RECIPE.replace("crop = 32", "crop = 20")).exit_code == 1
    result = train(videos, output, NETWORK + DATA + BASE)
    assert result.exit_code == 0, result.output


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


def test_a_resume_with_other_threads_is_told_of(
    trained: tuple[Path, Result], videos: Path, tmp_path: Path
):
    output = tmp_path / "out"
    train(videos, output, RECIPE, "--max-minutes", "0")
    torch.set_num_threads(2)
    result = train(videos, output, RECIPE)
    torch.set_num_threads(1)
    assert result.exit_code == 0, result.output
    assert "note: threads 1, now 2: the last bits of what follows may differ" in result.stderr
    assert [line[:2] for line in log(output)] == [line[:2] for line in log(trained[0])]


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set", "window.frames=17"), "--set window.frames is not for training"),
        (("--set", "tokenizer.dtype=float16"), "everything else is said by the recipe"),
        (("--validation-windows", "0"), "--validation-windows"),
        (("--max-minutes", "-1"), "--max-minutes"),
        (("--perceptual", __file__), "--perceptual: no stage has a perceptual_weight"),
        (("--workers", "3"), "--workers 3: stage 1: batch_size 2 is not a multiple of 3"),
    ],
)
def test_options_that_would_do_nothing_are_wrong_usage(
    videos: Path, tmp_path: Path, options: tuple[str, ...], message: str
):
    result = train(videos, tmp_path / "out", RECIPE, *options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_checkpoint_can_be_the_start_and_grow(
    trained: tuple[Path, Result], videos: Path, tmp_path: Path
):
    deeper = NETWORK.replace("decoder_layers = 1", "decoder_layers = 2") + DATA + BASE
    result = train(videos, tmp_path / "more", deeper, "--init", trained[0])
    assert result.exit_code == 0, result.output
    assert "made deeper, its function unchanged" in result.stderr
    wider = NETWORK.replace("channels = 4", "channels = 8") + DATA + BASE
    result = train(videos, tmp_path / "wider", wider, "--init", trained[0])
    assert result.exit_code == 1
    assert "cannot become the recipe's network" in result.stderr.splitlines()[-1]


def test_a_compressor_is_trained_on_programs_and_used(videos: Path, tmp_path: Path):
    base = write_fsq_programs(
        tmp_path / "base",
        TokenizerConfig(
            channels=4, channels_mult=(1, 2), num_res_blocks=1, patch_size=4, z_channels=8,
            levels=(8, 8, 8, 5, 5, 5), spatial_compression=8, temporal_compression=4,
            transformer=None,
        ),
    )  # fmt: skip
    stage = BASE.replace('"base"', '"compressor"')
    result = train(videos, tmp_path / "ours", NETWORK + DATA + stage, "--base", base)
    assert result.exit_code == 0, result.output
    assert "its programs (pixels have a gradient), and transformers that change" in result.stderr
    tokenizer = open_tokenizer(tmp_path / "ours")
    assert tokenizer.fingerprint == json.loads(result.stdout)["fingerprint"]
    result = train(videos, tmp_path / "more", DATA + stage, "--base", tmp_path / "ours")
    assert result.exit_code == 0, result.output
    assert "its programs and its compressor" in result.stderr
    result = train(videos, tmp_path / "x", NETWORK + DATA + BASE, "--base", base)
    assert result.exit_code == 1
    assert "stage 1: part = base, but a base of programs stays as it is" in result.stderr
    result = train(videos, tmp_path / "y", DATA + BASE, "--base", base, "--init", base)
    assert result.exit_code == 2
    assert "--base and --init exclude each other" in result.stderr


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
        ("[network]\nchanels = 1\n" + STEP, "chanels"),
        ("[network]\nchannels = 'x'\n" + STEP, "network.channels must be a whole number"),
        ("[network]\ntransformer = 3\n" + STEP, "network.transformer must be a table"),
        ("network = 3\n" + STEP, "network must be a table"),
        ("[network.transformer]\nheds = 1\n" + STEP, "heds"),
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
