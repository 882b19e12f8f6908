"""A corpus of small real videos, made once for all commands: 3 windows of 9x64x64."""

from __future__ import annotations

import pytest
import torch
from video_corpora import SmallCorpus, small


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> SmallCorpus:
    torch.set_num_threads(1)
    return small(tmp_path_factory.mktemp("small"))
