"""A corpus of real footage, made once for the readers that are tried on it."""

from __future__ import annotations

import pytest
import torch
from corpora import Corpus
from real_corpora import build_real_corpus


@pytest.fixture(scope="session")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    torch.set_num_threads(1)
    return build_real_corpus(tmp_path_factory.mktemp("footage"))
