"""From a file, ``--set`` and options to one configuration, and what of it is written down."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from pydantic import ValidationError

from jobs.config import load_config
from pipelines.config import RunConfig, StorageConfig


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(text)
    return path


def refused(*assignments: str, path: Path | None = None) -> str:
    with pytest.raises(click.UsageError) as caught:
        load_config(path, assignments)
    return caught.value.message


def test_nothing_given_means_the_defaults():
    assert load_config() == RunConfig()


def test_a_file_sets_what_it_names_and_nothing_else(tmp_path: Path):
    path = toml(tmp_path, '[space]\nsize = 64\n\n[output]\nformat = "both"\nlicence = "CC0"\n')
    config = load_config(path)
    assert (config.space.size, config.output.format, config.output.licence) == (64, "both", "CC0")
    assert config.space.mode == "crop"
    assert config.window == RunConfig().window


def test_assignments_win_over_the_file_and_options_over_assignments(tmp_path: Path):
    path = toml(tmp_path, "[routing]\nrate = 0.1\nmin_rate = 0.1\n[space]\nsize = 64\n")
    config = load_config(path, ["routing.rate=0.2", "space.size=128"], {"routing.rate": 0.3})
    assert (config.routing.rate, config.routing.min_rate, config.space.size) == (0.3, 0.1, 128)


def test_the_last_of_two_assignments_wins():
    assert load_config(None, ["space.size=64", "space.size=128"]).space.size == 128


def test_options_that_were_not_given_change_nothing():
    config = load_config(None, ["routing.rate=0.2"], {"routing.rate": None, "output.format": None})
    assert config.routing.rate == 0.2
    assert config.output.format == "parquet"


def test_assigned_values_have_the_types_of_toml():
    config = load_config(
        None,
        [
            "window.fps=12",
            "routing.rate=2.5e-1",
            "runtime.single_writer=true",
            'source.include=["*.mp4", "*.mkv"]',
            "output.shard_source_bytes=1_000_000",
            "source_storage.endpoint_url=http://127.0.0.1:9000/a=b",
            'output.licence="CC-BY 4.0, see LICENCE"',
            "space.mode=keep",
            " space.size = 64 ",
        ],
    )
    assert config.window.fps == 12.0
    assert config.routing.rate == 0.25
    assert config.runtime.single_writer is True
    assert config.source.include == ("*.mp4", "*.mkv")
    assert config.output.shard_source_bytes == 1_000_000
    assert config.source_storage.endpoint_url == "http://127.0.0.1:9000/a=b"
    assert config.output.licence == "CC-BY 4.0, see LICENCE"
    assert (config.space.mode, config.space.size) == ("keep", 64)


def test_a_bare_word_is_a_string():
    assert load_config(None, ["output.licence=CC-BY-4.0"]).output.licence == "CC-BY-4.0"
    assert load_config(None, ["output.split=val"]).output.split == "val"


def test_every_unknown_key_is_named(tmp_path: Path):
    path = toml(tmp_path, "[spaec]\nsize = 64\n[window]\nframe = 9\n")
    message = refused("routing.rat=0.5", path=path)
    assert "spaec: Extra inputs are not permitted" in message
    assert "window.frame: Extra inputs are not permitted" in message
    assert "routing.rat: Extra inputs are not permitted" in message


@pytest.mark.parametrize(
    ("assignment", "named"),
    [
        ("space.size=100", "space.size: Input should be a multiple of 16"),
        ("space.size=0", "space.size: Input should be greater than or equal to 16"),
        ("space.mode=squeeze", "space.mode: Input should be 'crop' or 'keep'"),
        ("window.frames=10", "window: Value error, window.frames must be 1 + 4k, not 10"),
        ("window.overlap=33", "window.overlap 33 must be smaller than frames 33"),
        ("window.fps=0", "window.fps: Input should be greater than 0"),
        ("window.fps=nan", "window.fps"),
        ("routing.rate=0", "routing.rate: Input should be greater than 0"),
        ("routing.rate=1.5", "routing.rate: Input should be less than or equal to 1"),
        ("routing.rate=0.05", "routing.rate 0.05 is below routing.min_rate 0.0625"),
        ("routing.rate=half", "routing.rate: Input should be a valid number"),
        ("output.format=tar", "output.format: Input should be 'parquet', 'webdataset' or 'both'"),
        ("output.split=Train", "output.split: String should match pattern"),
        ("output.file_bytes=0", "output.file_bytes: Input should be greater than 0"),
        ("tokenizer.dtype=int8", "tokenizer.dtype: Input should be 'auto', 'float32'"),
        ("runtime.actors=0", "runtime.actors: Input should be greater than or equal to 1"),
        ("runtime.single_writer=maybe", "runtime.single_writer: Input should be a valid boolean"),
        ("limits.attempts=0", "limits.attempts: Input should be greater than or equal to 1"),
        ("source.include=*.mp4", "source.include: Input should be a valid tuple"),
    ],
)
def test_a_wrong_value_is_named_with_what_it_should_be(assignment: str, named: str):
    assert named in refused(assignment)


def test_several_wrong_values_are_all_named():
    message = refused("space.size=3", "routing.rate=7", "window.tail=cut")
    assert all(name in message for name in ("space.size", "routing.rate", "window.tail"))


@pytest.mark.parametrize("assignment", ["space.size", "=5", " =5"])
def test_an_assignment_that_is_none_is_named(assignment: str):
    assert f"--set wants table.key=value, not {assignment!r}" in refused(assignment)


@pytest.mark.parametrize("first", ["routing=5", "routing=fast"])
def test_a_value_in_the_place_of_a_table_is_named(first: str):
    assert "routing.rate: routing is not a table" in refused(first, "routing.rate=0.5")
    assert "routing" in refused(first)


def test_a_key_without_a_table_is_unknown():
    assert "rate: Extra inputs are not permitted" in refused("rate=0.5")


def test_a_file_that_is_not_toml_or_not_there_is_named(tmp_path: Path):
    path = toml(tmp_path, "[space\n")
    assert str(path) in refused(path=path)
    path.write_bytes(b"\xff\xfe")
    assert str(path) in refused(path=path)
    assert "missing.toml" in refused(path=tmp_path / "missing.toml")


def test_a_configuration_survives_its_json():
    config = load_config(None, ["space.size=64", "window.fps=24", "runtime.actors=3"])
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


def test_the_configuration_in_effect_has_no_place_for_a_secret(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-tell")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nor-this")
    config = load_config(None, ["output_storage.endpoint_url=http://127.0.0.1:9"])
    written = config.model_dump_json()
    assert "do-not-tell" not in written
    assert "nor-this" not in written
    names = set(json.loads(written)["output_storage"])
    assert names == {"endpoint_url", "profile", "region", "anonymous"}


@pytest.mark.parametrize(
    "url", ["http://me:hunter2@127.0.0.1:9000", "https://me@store.example", "//me:hunter2@host"]
)
def test_an_endpoint_with_credentials_in_it_is_refused_without_repeating_them(url: str):
    message = refused(f"output_storage.endpoint_url={url}")
    assert "output_storage.endpoint_url" in message
    assert "credentials" in message
    assert "hunter2" not in message
    with pytest.raises(ValidationError):
        StorageConfig(endpoint_url=url)


def test_what_decides_the_content_is_told_from_what_does_not():
    before = RunConfig()
    after = load_config(
        None,
        ["runtime.actors=9", "tokenizer.batch_size=2", "limits.stall_s=1", "runtime.progress_s=1"],
    )
    assert before.analysis_identity() == after.analysis_identity()
    assert before.tokens_identity() == after.tokens_identity()
    assert before.tokens_identity() != load_config(None, ["output.split=val"]).tokens_identity()


def test_the_precision_follows_the_device_unless_it_is_said():
    automatic, said = load_config().tokenizer, load_config(None, ["tokenizer.dtype=bfloat16"])
    assert [automatic.dtype_on(device) for device in ("cpu", "cuda")] == ["float32", "float16"]
    assert said.tokenizer.dtype_on("cuda") == "bfloat16"
    assert said.analysis_identity() != load_config().analysis_identity()


def test_an_exponent_goes_with_the_exact_budget_and_changes_pass_two_alone():
    plain, flat = load_config(), load_config(None, ["routing.exponent=0.5"])
    assert flat.analysis_identity() == plain.analysis_identity()
    assert flat.tokens_identity() != plain.tokens_identity()
    assert "exponent" not in plain.tokens_identity()["routing"]
    for other in ("routing.budget=paper", "routing.router=static", "routing.expected_elbo=0.1"):
        assert "exponent other than 1" in refused("routing.exponent=0.5", other)
    assert "multiple of 0.25" in refused("routing.exponent=0.6")


def test_a_token_threshold_is_refused_with_what_it_has_no_use_for():
    chosen = load_config(None, ["routing.router=token_threshold"])
    assert chosen.analysis_identity() == load_config().analysis_identity()
    for other in ("routing.budget=paper", "routing.expected_elbo=0.1"):
        message = refused("routing.router=token_threshold", other)
        assert "token_threshold goes with budget = exact and no expected_elbo" in message
    assert "exponent other than 1" in refused(
        "routing.router=token_threshold", "routing.exponent=0.5"
    )
    assert "below routing.min_rate" in refused(
        "routing.router=token_threshold", "routing.rate=0.05"
    )
