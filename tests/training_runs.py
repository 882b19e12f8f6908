"""``infotok train`` on a CPU in seconds: a recipe of two stages, and the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from jobs.cli import main

ROOT = Path(__file__).parents[1]
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
RECIPE = NETWORK + DATA + BASE + ELBO


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
