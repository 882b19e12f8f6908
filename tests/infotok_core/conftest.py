"""A network small enough for a test: seeded random weights, every kind of layer."""

from __future__ import annotations

import networks
import pytest
import torch

from infotok_core.checkpoint import Checkpoint, fingerprint
from infotok_core.config import TokenizerConfig
from infotok_core.network import Network, build_network
from infotok_core.tokenizer import Tokenizer


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def toy_config() -> TokenizerConfig:
    return networks.toy_config()


@pytest.fixture
def toy_network(toy_config: TokenizerConfig) -> Network:
    return build_network(toy_config, seed=1).eval()


@pytest.fixture
def toy_tokenizer(toy_network: Network) -> Tokenizer:
    checkpoint = Checkpoint(
        network=toy_network, fingerprint=fingerprint(toy_network), ema_loss=None
    )
    return Tokenizer(checkpoint)


@pytest.fixture
def toy_video() -> torch.Tensor:
    """Three windows of 13 frames, 32 x 48: uint8 [3, 13, 32, 48, 3]."""
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (3, 13, 32, 48, 3), dtype=torch.uint8, generator=generator)
