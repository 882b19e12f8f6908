"""``infotok export`` and what becomes of its programs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from infotok_core.checkpoint import save_directory
from infotok_core.config import mini
from infotok_core.network import build_network
from infotok_core.opening import identify_tokenizer, open_tokenizer
from jobs.cli import main


def export(*arguments: str | Path) -> Result:
    torch.set_num_threads(1)
    return CliRunner().invoke(main, ["export", *(str(argument) for argument in arguments)])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    config = dataclasses.replace(mini(), channels=4, z_channels=8, transformer=None)
    save_directory(build_network(config, seed=0), folder, card="")
    return folder


def test_a_checkpoint_becomes_programs_and_the_report_says_how_near(checkpoint, tmp_path):
    result = export(checkpoint, tmp_path / "programs")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["fingerprint"] == open_tokenizer(tmp_path / "programs").fingerprint
    assert report["source_fingerprint"] == open_tokenizer(checkpoint).fingerprint
    assert report["max_error"] < 1e-5
    # No transformers, so no embeddings that end somewhere.
    assert identify_tokenizer(tmp_path / "programs").shape.max_grid is None
    names = sorted(path.name for path in (tmp_path / "programs").iterdir())
    assert names == ["decoder.jit", "encoder.jit", "tokenizer.json"]
    again = export(tmp_path / "programs", tmp_path / "again")
    assert again.exit_code == 1
    assert "error: checkpoint" in again.output
    assert "holds programs, which are run and not loaded" in again.output


def test_a_folder_of_the_name_of_the_default_checkpoint_is_not_taken_for_it(
    checkpoint, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    report = json.loads(export(checkpoint, "default").stdout)
    assert report["fingerprint"] == open_tokenizer(tmp_path / "default").fingerprint


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is always full")
@pytest.mark.parametrize("kind", ["jit", "pt2"])
def test_a_full_disk_is_a_sentence(checkpoint, tmp_path, kind):
    (tmp_path / f"encoder.{kind}").symlink_to("/dev/full")
    window = ("--window", "5,32,32") if kind == "pt2" else ()
    result = export(checkpoint, tmp_path, "--format", kind, *window)
    assert result.exit_code == 1
    assert f"error: {tmp_path} cannot be written: No space left on device" in result.output


def test_a_folder_that_cannot_be_made_is_a_sentence(checkpoint, tmp_path):
    (tmp_path / "file").touch()
    result = export(checkpoint, tmp_path / "file" / "out")
    assert result.exit_code == 1
    assert "cannot be written" in result.output


def test_a_wrong_use_says_what_is_wrong(checkpoint, tmp_path):
    for arguments, code, message in (
        ([tmp_path / "nowhere", tmp_path / "x"], 1, "nowhere: does not exist"),
        ([checkpoint, checkpoint], 1, "holds a checkpoint: export into another directory"),
        ([checkpoint, tmp_path / "x", "--window", "9,32,32"], 2, "TorchScript takes any shape"),
        ([checkpoint, tmp_path / "x", "--format", "pt2", "--window", "9,32"], 2, "T,H,W, not"),
        (
            [checkpoint, tmp_path / "x", "--format", "pt2", "--window", "8,32,32"],
            2,
            "1 + 4k frames, not 8",
        ),
    ):
        result = export(*arguments)
        assert result.exit_code == code
        assert message in result.output
