"""``infotok train`` from videos to a checkpoint that can be used, in seconds on a CPU."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import Result
from programs import write_fsq_programs
from training_runs import (
    BASE,
    DATA,
    NETWORK,
    ROOT,
    log,
    start,
    train,
)

from infotok_core.config import TokenizerConfig
from infotok_core.opening import open_tokenizer
from infotok_core.tokenizer import Tokenizer


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


@pytest.mark.ray
@pytest.mark.slow
def test_two_workers_of_ray_train_what_one_process_trains(
    trained: tuple[Path, Result], videos: Path, tmp_path: Path
):
    output = tmp_path / "out"
    # Ray Train starts its processes in other folders: a relative path must not lead there.
    process = start(Path(os.path.relpath(videos, ROOT)), output, "--workers", "2")
    stdout, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output.with_suffix(".err").read_text()[-3000:]
    assert json.loads(stdout)["finished"] is True
    assert "Failed to query" not in output.with_suffix(".err").read_text()
    ours, theirs = ([line for line in log(folder) if line[2]] for folder in (output, trained[0]))
    assert [line[:2] for line in ours] == [line[:2] for line in theirs]
    assert [line[2] for line in ours] == pytest.approx([line[2] for line in theirs], rel=1e-3)


def test_an_output_inside_the_videos_is_none_of_them(videos: Path, tmp_path: Path):
    shutil.copytree(videos, tmp_path / "videos")
    output = tmp_path / "videos" / "out"
    for _ in range(2):
        result = train(tmp_path / "videos", output, NETWORK + DATA + BASE, "--validation", videos)
        assert result.exit_code == 0, result.output


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
