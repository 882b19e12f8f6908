"""A corpus made by two tokenizers, on two GPUs or on one, is the one made by one."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
from runs import REPOSITORY, finish, start

from benchmarks.processes import Session
from infotok_core.checkpoint import save_directory
from infotok_core.config import published
from infotok_core.network import build_network

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.ray,
    pytest.mark.skipif(torch.cuda.device_count() < 1, reason="needs a GPU"),
]

_CALLS_OF_ONE_UNIT = {"runtime.calls_per_actor": 1}
"""One tokenizer cannot hold all of the units then, so the other gets some; and its batches hold
other windows than where all calls share them."""


@pytest.fixture(params=["default", "published"])
def network(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A checkpoint."""
    if request.param == "default":
        return "default"
    folder = tmp_path / "published"
    save_directory(build_network(published(), seed=0), folder, card="", dtype="float32")
    return str(folder)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Sixteen, by four names each."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for clip in (REPOSITORY / "examples" / "clips").iterdir():
        for copy in range(4):
            shutil.copyfile(clip, folder / f"{copy}-{clip.name}")
    return folder


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_write_what_one_writes_byte_for_byte(network: str, videos: Path, tmp_path: Path):
    # Side by side: most of the time goes into starting.
    with (
        _run(network, videos, tmp_path / "one", gpus="0") as one,
        _run(network, videos, tmp_path / "two", gpus="0,1", **_CALLS_OF_ONE_UNIT) as two,
    ):
        _assert_alike(one, two, tmp_path)


def test_two_tokenizers_on_a_gpu_write_what_one_writes_byte_for_byte(
    network: str, videos: Path, tmp_path: Path
):
    settings = {"runtime.actors_per_gpu": 2, **_CALLS_OF_ONE_UNIT}
    with (
        _run(network, videos, tmp_path / "one", gpus="0") as one,
        _run(network, videos, tmp_path / "two", gpus="0", **settings) as two,
    ):
        _assert_alike(one, two, tmp_path)


def _run(network: str, videos: Path, output: Path, *, gpus: str, **settings: int) -> Session:
    command = [sys.executable, "-m", "jobs", "run", str(videos), str(output)]
    command += ["--checkpoint", network, "--format", "both"]
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    return start(command, output.with_suffix(".log"), {"CUDA_VISIBLE_DEVICES": gpus})


def _assert_alike(one: Session, two: Session, folder: Path) -> None:
    first, second = finish(one, folder / "one"), finish(two, folder / "two")
    assert first.summary["videos_committed"] == 16
    assert first.digests
    assert second.digests == first.digests
