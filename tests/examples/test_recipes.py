from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from infotok_core.checkpoint import load_checkpoint
from pipelines.training_recipe import load_recipe

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    "name", ["train.toml", "scratch.toml", "ablation.toml", "budget_aware.toml"]
)
def test_the_recipes_of_the_docs_can_be_read(name: str):
    assert load_recipe(EXAMPLES / name).stages


def test_the_shipped_checkpoint_is_the_network_of_its_recipe():
    network = load_checkpoint("default").network
    assert load_recipe(EXAMPLES / "train.toml").network == network.config


def test_the_budget_aware_recipe_differs_from_the_default_in_that_alone(tmp_path: Path):
    text = (EXAMPLES / "budget_aware.toml").read_text()
    plain = tmp_path / "plain.toml"
    plain.write_text(text.replace("budget_aware = true", "budget_aware = false"))
    default = load_checkpoint("default").network.config
    assert load_recipe(plain).network == default
    aware, inner = load_recipe(EXAMPLES / "budget_aware.toml").network, default.transformer
    assert inner is not None
    inner = dataclasses.replace(inner, budget_aware=True)
    assert aware == dataclasses.replace(default, transformer=inner)
