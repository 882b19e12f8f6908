from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from corpora import Corpus, build_corpus, copy_of, video_windows
from strategies import TOKENIZER

from jobs.cli import main
from schemas.ids import clip_id, video_id
from schemas.layout import MANIFEST_PATH
from schemas.plan import PLAN_SCHEMA
from schemas.tables import write_parquet
from schemas.units import encode_unit


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return build_corpus(tmp_path_factory.mktemp("corpus"))


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["inspect", *map(str, arguments)])


def test_a_corpus_is_shown_from_its_head_to_a_few_rows(corpus: Corpus):
    result = _run(corpus.store.url)
    assert result.exit_code == 0, result.output
    for words in (
        "6 of 7, 1 set aside",
        "s3://bucket/a & b",
        "token-weighted mean",
        "TRUNCATED",
        "4 data files",
        clip_id(video_id("videos/0.mp4"), 0),
    ):
        assert words in result.stdout


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("meta/info.json", '"source_root"'),
        ("meta/statistics.json", "window-weighted mean"),
        ("meta/manifest.parquet", "4 data files"),
        ("quarantine/quarantine.parquet", "1 videos set aside"),
        ("data/train-000000-00.parquet", "windows of 3 videos"),
        ("wds/train-000001-00.tar", "windows of 3 videos"),
    ],
)
def test_any_object_is_shown(corpus: Corpus, path: str, words: str):
    result = _run(Path(corpus.store.url, path))
    assert result.exit_code == 0, result.output
    assert words in result.stdout


def test_a_unit_of_the_work_folder_is_shown(tmp_path: Path):
    video = video_id("a.mp4")
    data = encode_unit(video_windows("a.mp4", 3), video=video, unit_index=0, tokenizer=TOKENIZER)
    (tmp_path / "u.parquet").write_bytes(data)
    assert "3 windows" in _run(tmp_path / "u.parquet").stdout


def test_a_work_folder_shows_its_plan(tmp_path: Path):
    row = {"uri": "a.mp4", "video_id": "v", "size": 5, "version": "1", "shard": 0, "extra": None}
    table = pa.Table.from_pylist([row], schema=PLAN_SCHEMA)
    (tmp_path / "plan.parquet").write_bytes(write_parquet(table, metadata={}))
    result = _run(tmp_path)
    assert result.exit_code == 0, result.output
    assert "1 videos in 1 shards" in result.stdout


def test_a_clip_is_drawn(corpus: Corpus):
    clip = clip_id(video_id("videos/2.mp4"), 1)
    result = _run(corpus.store.url, "--clip", clip)
    assert result.exit_code == 0, result.output
    assert clip in result.stdout
    assert "kept tokens, all latent frames" in result.stdout


def test_a_clip_that_is_not_there_is_named(corpus: Corpus):
    result = _run(corpus.store.url, "--clip", "no-such")
    assert result.exit_code == 1
    assert "has no clip 'no-such'" in result.stderr


def test_what_cannot_be_shown_is_said_in_one_line(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    for arguments, code, words in (
        ((tmp_path,), 4, "neither a corpus"),
        ((tmp_path, "--clip", "x"), 4, MANIFEST_PATH),
        ((tmp_path / "none.json",), 1, "does not exist"),
        ((tmp_path / "notes.txt",), 1, "none of the objects"),
        ((tmp_path / "cut.parquet",), 1, "cannot be read"),
    ):
        result = _run(*arguments)
        assert result.exit_code == code, result.output
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: ")
        assert words in line


def test_a_corpus_without_its_statistics_is_still_shown(corpus: Corpus, tmp_path: Path):
    store = copy_of(corpus, tmp_path / "copy")
    store.delete("meta/statistics.json")
    assert _run(store.url).exit_code == 0
