from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from corpora import Corpus, build_corpus, copy_of
from shared import requires_shared
from video_corpora import SmallCorpus
from videos import numbered_frame, write_video

from jobs.cli import main
from jobs.reading import open_codec
from pipelines.errors import PipelineError
from pipelines.storage import Store
from schemas.layout import MANIFEST_PATH, RECONSTRUCTION_PATH
from schemas.reconstruction import ReconstructionSample


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


def test_a_decoded_sample_is_measured_and_stored(small_corpus: SmallCorpus, tmp_path: Path):
    copy = _copy(small_corpus, tmp_path)
    result = _run(str(copy), "--reconstruct", "2")
    assert result.exit_code == 0, result.output
    measured = ReconstructionSample.from_bytes((copy / RECONSTRUCTION_PATH).read_bytes())
    assert len(measured.clips) == 2
    assert all(10 < clip.psnr_db < 60 for clip in measured.clips)
    assert f"PSNR {measured.psnr_db:.2f} dB, SSIM {measured.ssim:.4f}" in result.stdout
    # The same windows each time, and their measures are on the report.
    again = _run(str(copy), "--reconstruct", "2", "--json")
    found = json.loads(again.stdout)["reconstruction"]
    assert found == {"windows": 2, "psnr_db": measured.psnr_db, "ssim": measured.ssim}
    page = CliRunner().invoke(main, ["report", str(copy), "--no-decode"])
    assert page.exit_code == 0, page.output
    assert f"{measured.psnr_db:.2f} dB" in (copy / "report.html").read_text()


def test_tokens_come_out_of_their_source_again(small_corpus: SmallCorpus):
    # More than there are; a padded tail among them.
    result = _run(str(small_corpus.webdataset), "--re-encode", "9", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["encoded_again"]
    assert [clip["different"] for clip in found] == [0, 0, 0]


def test_tokens_of_another_video_are_a_fault(small_corpus: SmallCorpus, tmp_path: Path):
    folder = tmp_path / "others"
    folder.mkdir()
    # As long, and in the same place, but not what was tokenised.
    write_video(folder / "a.mp4", [numbered_frame(100 + n) for n in range(12)])
    write_video(folder / "b.mp4", [numbered_frame(50 + n) for n in range(9)])
    result = _run(str(small_corpus.parquet), "--re-encode", "3", "--against", str(folder))
    assert result.exit_code == 3
    assert "encoded 3 windows again" in result.stdout
    assert result.stdout.count("tokens do not come out again") == 3


@requires_shared
@pytest.mark.shared
def test_so_it_is_on_real_footage(footage: Corpus, tmp_path: Path):
    store = copy_of(footage, tmp_path / "copy")
    result = _run(store.url, "--reconstruct", "5", "--re-encode", "5", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [clip["different"] for clip in found["encoded_again"]] == [0] * 5
    stored = ReconstructionSample.from_bytes(store.read(RECONSTRUCTION_PATH))
    assert (stored.psnr_db, stored.ssim) == (
        found["reconstruction"]["psnr_db"],
        found["reconstruction"]["ssim"],
    )
    assert stored.psnr_db > 15


def _copy(small_corpus: SmallCorpus, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_corpus.parquet, tmp_path / "corpus"))


def test_a_corpus_in_half_precision_cannot_be_encoded_again_on_a_cpu():
    with pytest.raises(PipelineError, match="the CPU computes in float32 alone"):
        open_codec("default", "cpu", dtype="float16")
    assert open_codec("default", "cpu", dtype="auto").dtype == torch.float32


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said(small_corpus: SmallCorpus):
    result = _run(str(small_corpus.parquet), "--reconstruct", "1", "--device", "cuda")
    assert result.exit_code == 1
    assert "there is no GPU here" in result.stderr


@pytest.mark.parametrize("text", ["{", '{"config": {}}', "[]"])
def test_a_configuration_that_makes_no_sense_is_a_fault(
    small_corpus: SmallCorpus, tmp_path: Path, text: str
):
    corpus = _copy(small_corpus, tmp_path)
    (corpus / "meta" / "config.json").write_text(text)
    result = _run(str(corpus), "--reconstruct", "1")
    assert result.exit_code == 3, result.output
    assert "meta/config.json: does not say which corpus it is of" in result.stdout


@pytest.mark.parametrize("config", [{}, {"tokenizer": {"dtype": "float8"}}])
def test_a_configuration_that_nothing_can_be_computed_by_is_named(
    small_corpus: SmallCorpus, tmp_path: Path, config: dict[str, Any]
):
    corpus = _copy(small_corpus, tmp_path)
    key = json.loads((corpus / "meta" / "info.json").read_text())["tokens_key"]
    document = {"tokens_key": key, "config": config}
    (corpus / "meta" / "config.json").write_text(json.dumps(document))
    result = _run(str(corpus), "--reconstruct", "1")
    assert result.exit_code == 1, result.output
    assert "meta/config.json does not say how the corpus was computed" in result.stderr
