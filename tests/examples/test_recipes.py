from __future__ import annotations

from pathlib import Path

import pytest

from infotok_core.checkpoint import load_checkpoint
from pipelines.training_recipe import load_recipe

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", ["train.toml", "ablation.toml"])
def test_the_recipes_of_the_docs_can_be_read(name: str):
    assert load_recipe(EXAMPLES / name).stages


def test_the_shipped_checkpoint_is_the_network_of_its_recipe():
    network = load_checkpoint("default").network
    assert load_recipe(EXAMPLES / "train.toml").network == network.config
