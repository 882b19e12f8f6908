"""``infotok train`` from videos to a checkpoint that can be used, in seconds on a CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from videos import write_video

from infotok_core.tokenizer import Tokenizer
from jobs.cli import main

STAGES = """
[[stage]]
frames = 5
crop = 16
batch_size = 2
steps = 2
warmup_steps = 1
transformers = false
log_every = 1

[[stage]]
frames = 5
crop = 32
batch_size = 1
steps = 2
rates = [0.5]
log_every = 1
"""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "a.mp4", 40)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def train(videos: Path, output: Path, stages: str, *options: str | Path) -> Result:
    path = output.with_suffix(".toml")
    path.write_text(stages)
    torch.set_num_threads(1)
    arguments = ["train", videos, output, "--stages", path, "--size", 32, "--device", "cpu"]
    return CliRunner().invoke(main, [str(item) for item in (*arguments, *options)])


@pytest.fixture(scope="module")
def trained(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    output = tmp_path_factory.mktemp("trained") / "checkpoint"
    output.with_name("card.md").write_text("# My tokenizer\n")
    result = train(
        videos, output, STAGES, "--validation", videos, "--card", output.with_name("card.md")
    )
    return output, result


def test_it_writes_a_checkpoint_that_tokenises(trained: tuple[Path, Result]):
    output, result = trained
    assert result.exit_code == 0, result.output
    tokenizer = Tokenizer.load(output)
    assert tokenizer.fingerprint == json.loads(result.stdout)["fingerprint"]
    video = torch.zeros(1, 5, 32, 32, 3, dtype=torch.uint8)
    analysis = tokenizer.analyse(video)
    assert analysis.codes_Bthw.shape == (1, 2, 4, 4)
    assert torch.isfinite(analysis.information_Bthw).all()


def test_it_reports_losses_and_psnr(trained: tuple[Path, Result]):
    _, result = trained
    document = json.loads(result.stdout)
    assert [stage["steps"] for stage in document["stages"]] == [2, 2]
    assert all(0 < loss < 3 for stage in document["stages"] for loss in stage["losses"])
    assert set(document["psnr_db"]) == {"1.0", "0.75", "0.5", "0.25"}
    assert "step 2" in result.stderr
    assert "windows to train on, cpu" in result.stderr


def test_the_card_holds_the_text_given_and_the_record(trained: tuple[Path, Result]):
    output, _ = trained
    card = (output / "README.md").read_text()
    assert card.startswith("# My tokenizer\n")
    assert '"psnr_db"' in card


def test_training_goes_on_from_a_checkpoint(
    trained: tuple[Path, Result], videos: Path, tmp_path: Path
):
    one_step = "[[stage]]\nframes = 5\ncrop = 16\nbatch_size = 1\nsteps = 1\n"
    result = train(videos, tmp_path / "more", one_step, "--init", trained[0])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["fingerprint"] != Tokenizer.load(trained[0]).fingerprint


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("", "there is no [[stage]]"),
        ("stage = []", "there is no [[stage]]"),
        ("[[stage]]\nframes = 5\n", "needs an end: steps or minutes"),
        ("[[stage]]\nsteps = 1\nframs = 5\n", "frams"),
        ("[[stage]\n", "stages.toml"),
        ("[[stage]]\nsteps = 1\nrates = [2.0]\n", "rates must lie in (0, 1]"),
    ],
)
def test_stages_that_make_no_sense_are_wrong_usage(
    videos: Path, tmp_path: Path, stages: str, message: str
):
    result = train(videos, tmp_path / "stages", stages)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--init", "no-such-checkpoint"), "no-such-checkpoint"),
        (("--validation", "no-such-folder"), "input no-such-folder does not exist"),
    ],
)
def test_what_is_not_there_is_a_sentence(
    videos: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
):
    one_step = "[[stage]]\nframes = 5\ncrop = 16\nbatch_size = 1\nsteps = 1\n"
    result = train(videos, tmp_path / "out", one_step, *arguments)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert message in result.stderr.splitlines()[-1]


def test_a_size_the_decoder_does_not_make_is_wrong_usage(videos: Path, tmp_path: Path):
    result = train(videos, tmp_path / "out", STAGES, "--size", "100")
    assert result.exit_code == 2
    assert "space.size: Input should be a multiple of 16" in result.stderr


def test_crops_larger_than_the_videos_are_a_sentence(videos: Path, tmp_path: Path):
    large = "[[stage]]\nframes = 5\ncrop = 48\nbatch_size = 1\nsteps = 1\n"
    result = train(videos, tmp_path / "out", large)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "error: no clip holds 5 frames of 48x48"
