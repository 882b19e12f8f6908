"""A corpus made by programs instead of a network: exported, run, checked, and seen again."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from runs import finish, run_command, start
from videos import write_video

from infotok_core.checkpoint import save_directory
from infotok_core.config import TokenizerConfig, TransformerConfig
from infotok_core.export import export_programs
from infotok_core.network import build_network
from infotok_core.tokenizer import Tokenizer
from jobs.cli import main

pytestmark = pytest.mark.ray

LEVELS = (8, 5, 5)
"""200 codes, so that nothing can rest on the published 64,000."""


def test_an_exported_tokenizer_makes_a_corpus_that_validates_and_decodes(tmp_path: Path) -> None:
    config = TokenizerConfig(
        channels=4, channels_mult=(1,), num_res_blocks=1, patch_size=4, z_channels=16,
        levels=LEVELS, spatial_compression=4, temporal_compression=4,
        transformer=TransformerConfig(
            hidden=16, mlp_hidden=16, encoder_layers=1, decoder_layers=1, heads=2, init_std=0.3
        ),
    )  # fmt: skip
    save_directory(build_network(config, seed=1).eval(), tmp_path / "weights", card="")
    export_programs(Tokenizer.load(tmp_path / "weights"), tmp_path / "programs")
    (tmp_path / "in").mkdir()
    for name, frames in (("a", 22), ("b", 9)):
        write_video(tmp_path / "in" / f"{name}.mp4", frames)

    output = tmp_path / "out"
    command = run_command(tmp_path / "in", output, tmp_path / "programs")
    with start(command, tmp_path / "run.log") as session:
        summary = finish(session, output).summary
    assert (summary["videos_committed"], summary["windows"]) == (2, 4)
    assert summary["rate_realised"] == pytest.approx(0.5, abs=0.01)

    info = json.loads((output / "meta" / "info.json").read_text())
    assert info["tokenizer"]["num_codes"] == 200
    assert info["tokenizer"]["spatial_compression"] == 4
    rows = pq.read_table(output / "data").to_pylist()
    assert max(max(row["tokens"]) for row in rows) < 200
    assert {(row["grid_h"], row["grid_w"]) for row in rows} == {(8, 8)}
    assert "log2(200)" in (output / "README.md").read_text()

    assert _infotok("validate", output).exit_code == 0
    report = _infotok(
        "reconstruct", output, "--against", "--to", tmp_path / "videos", "--json", "-",
        "--checkpoint", tmp_path / "programs",
    )  # fmt: skip
    assert report.exit_code == 0, report.output
    assert json.loads(report.stdout)["mean"]["num_frames"] == 31
    assert sorted(path.suffix for path in (tmp_path / "videos").iterdir()) == [
        *[".mp4"] * 2,
        *[".png"] * 2,
    ]
    # The network that the programs came from has another fingerprint: they may round otherwise.
    other = _infotok("reconstruct", output, "--against", "--checkpoint", tmp_path / "weights")
    assert "name the right one with --checkpoint" in other.output


def _infotok(*arguments: str | Path):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])
