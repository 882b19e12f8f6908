"""What ``append`` and ``retry-failed`` refuse before they start an engine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from video_corpora import SmallCorpus
from videos import write_video

from jobs.cli import main
from pipelines.claims import claim_output
from pipelines.config import RunConfig
from pipelines.storage import Store

SETTINGS = {"window": {"frames": 9}, "space": {"size": 64}}


@pytest.fixture
def corpus(small_corpus: SmallCorpus, tmp_path: Path) -> Path:
    output = Path(shutil.copytree(small_corpus.parquet, tmp_path / "corpus"))
    config = RunConfig.model_validate(SETTINGS).model_dump(mode="json", exclude={"runtime"})
    claim_output(Store(str(output)), "k" * 64, config, instead="")
    return output


def test_videos_of_another_root_are_refused_before_any_work(corpus: Path, tmp_path: Path):
    other = tmp_path / "other"
    other.mkdir()
    write_video(other / "c.mp4", 9)
    result = CliRunner().invoke(main, ["append", str(other), str(corpus)])
    assert result.exit_code == 4
    assert "source_root: " in result.output
    assert str(other) in result.output
    assert not (corpus / "_work" / "append-000" / "work").exists()


def test_where_nothing_was_set_aside_that_is_what_is_said(corpus: Path, small_corpus: SmallCorpus):
    result = CliRunner().invoke(main, ["retry-failed", str(small_corpus.videos), str(corpus)])
    assert result.exit_code == 0
    assert result.output == f"nothing to add to {corpus}: none of its videos was set aside\n"
    by_reason = ["retry-failed", str(small_corpus.videos), str(corpus), "--reason", "TRUNCATED"]
    assert CliRunner().invoke(main, by_reason).output.endswith("was set aside for TRUNCATED\n")


def test_where_all_videos_are_known_that_is_what_is_said(corpus: Path, small_corpus: SmallCorpus):
    result = CliRunner().invoke(main, ["append", str(small_corpus.videos), str(corpus)])
    said = f"nothing to add to {corpus}: it knows all videos of {small_corpus.videos}\n"
    assert (result.exit_code, result.output) == (0, said)
