"""A corpus made on two GPUs is the one made on one of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from runs import REPOSITORY, finish, start

from infotok_core.checkpoint import save_directory
from infotok_core.config import published
from infotok_core.network import build_network

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.ray,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"),
]


@pytest.mark.parametrize("network", ["default", "published"])
def test_two_gpus_write_what_one_writes_byte_for_byte(network: str, tmp_path: Path):
    checkpoint = network
    if network == "published":
        checkpoint = str(tmp_path / "published")
        weights = build_network(published(), seed=0)
        save_directory(weights, Path(checkpoint), card="", dtype="float32")
    command = [sys.executable, "-m", "jobs", "run", str(REPOSITORY / "examples" / "clips")]
    command += ["--checkpoint", checkpoint, "--format", "both"]
    outputs = {"0": tmp_path / "one", "0,1": tmp_path / "two"}
    # Side by side: most of the time goes into starting.
    runs = [
        start([*command, str(output)], output.with_suffix(".log"), {"CUDA_VISIBLE_DEVICES": gpus})
        for gpus, output in outputs.items()
    ]
    one, two = map(finish, runs, outputs.values())
    assert one.digests
    assert two.digests == one.digests
