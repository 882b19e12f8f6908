"""What the tests of commands share: a corpus of small real videos, and a small training run.

The corpus: 3 windows of 9x64x64 each.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import Result
from training_runs import RECIPE, train
from video_corpora import SmallCorpus, small
from videos import write_video


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> SmallCorpus:
    torch.set_num_threads(1)
    return small(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of 40 frames, and one that is none."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "a.mp4", 40)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="session")
def trained(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """What a training run gives that nobody disturbs."""
    torch.set_num_threads(1)
    output = tmp_path_factory.mktemp("trained") / "checkpoint"
    card = output.with_name("card.md")
    card.write_text("# My tokenizer\n")
    return output, train(videos, output, RECIPE, "--validation", videos, "--card", card)
