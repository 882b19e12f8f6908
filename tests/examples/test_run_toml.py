from __future__ import annotations

from pathlib import Path

from jobs.config import load_config
from pipelines.config import RunConfig

EXAMPLE = Path(__file__).parents[2] / "examples" / "run.toml"


def test_the_example_shows_every_default_as_it_is():
    assert load_config(EXAMPLE) == RunConfig()


def test_the_example_names_every_key():
    text = EXAMPLE.read_text()
    for table, field in RunConfig.model_fields.items():
        assert f"[{table}]" in text
        for key in field.default.__class__.model_fields:
            assert f"\n{key} =" in text or f"\n# {key} =" in text, f"{table}.{key}"
