from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from corpora import Corpus, build_corpus, copy_of

from jobs.cli import main
from pipelines.storage import Store
from schemas.layout import MANIFEST_PATH


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return build_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def store(corpus: Corpus, tmp_path: Path) -> Store:
    """A copy to damage."""
    return copy_of(corpus, tmp_path / "copy")


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["validate", *arguments])


def test_a_sound_corpus_exits_with_0(corpus: Corpus):
    result = _run(corpus.store.url)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("sound: 4 files")


def test_each_fault_is_a_line_and_the_exit_code_is_3(store: Store):
    path = "data/train-000000-00.parquet"
    store.replace(path, store.read(path)[:-9])
    result = _run(store.url)
    assert result.exit_code == 3
    head, *faults = result.stdout.splitlines()
    assert "faults" in head
    assert any(line.startswith(f"{path}: has ") for line in faults)


def test_a_damaged_manifest_is_a_fault(store: Store):
    store.replace(MANIFEST_PATH, b"PAR1")
    result = _run(store.url)
    assert result.exit_code == 3
    assert f"{MANIFEST_PATH}: manifest cannot be read" in result.stdout


def test_json_says_the_same(store: Store):
    store.delete("wds/train-000001-00.tar")
    result = _run(store.url, "--json")
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert not document["ok"]
    assert {"path": "wds/train-000001-00.tar", "what": "is missing"} in document["faults"]
    assert document["videos"] == 6


@pytest.mark.parametrize("name", ["", "no/such/folder"])
def test_no_corpus_exits_with_4(tmp_path: Path, name: str):
    result = _run(str(tmp_path / name))
    assert result.exit_code == 4
    assert "holds no corpus" in result.stderr
    assert MANIFEST_PATH in result.stderr
