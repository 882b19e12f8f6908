"""A corpus that is routed by predicted information: asked for, refused, and said in what it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluations import write_small_checkpoint
from programs import write_programs
from work_folders import analysed, video, write

from infotok_core.config import mini
from infotok_core.shape import shape_of
from infotok_core.tokenizer import Tokenizer
from jobs.config import load_config
from pipelines.config import RunConfig
from pipelines.errors import PipelineError, PlanMismatchError
from pipelines.finalise import finalise
from pipelines.run import Corpus
from pipelines.statistics import load_statistics
from pipelines.tokenizer_actor import load_tokenizer
from schemas.info import CorpusInfo
from schemas.statistics import PREDICTED_ELBO_UNIT, merge_statistics

LATENT = "analysis.information=latent"


def config_of(checkpoint: Path, *settings: str) -> RunConfig:
    return load_config(None, [f"tokenizer.checkpoint={checkpoint}", *settings])


def test_a_checkpoint_that_cannot_predict_is_refused_at_once(tmp_path: Path):
    for checkpoint in (write_small_checkpoint(tmp_path / "a"), write_programs(tmp_path / "b")):
        Corpus.open(config_of(checkpoint), output=str(tmp_path / "out"))
        with pytest.raises(PipelineError, match=r"no latent router, which analysis\.information"):
            Corpus.open(config_of(checkpoint, LATENT), output=str(tmp_path / "out"))


def test_the_source_of_information_is_part_of_what_a_plan_is(tmp_path: Path):
    checkpoint = write_small_checkpoint(tmp_path / "checkpoint", latent_router=8)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").write_bytes(b"12345")
    output = str(tmp_path / "out")
    measured = Corpus.open(config_of(checkpoint), output=output)
    # Runs from before there was a choice go on as they were.
    assert "information" not in measured.plan(str(tmp_path / "in")).head.analysis
    predicted = Corpus.open(config_of(checkpoint, LATENT), output=output)
    with pytest.raises(PlanMismatchError, match="information: was None, is latent"):
        predicted.plan(str(tmp_path / "in"))


def test_the_actors_predict_if_the_configuration_says_so(tmp_path: Path):
    checkpoint = write_small_checkpoint(tmp_path / "checkpoint", latent_router=8)
    for settings, source in (((), "elbo"), ((LATENT,), "latent")):
        tokenizer = load_tokenizer(config_of(checkpoint, *settings), "cpu")
        assert isinstance(tokenizer, Tokenizer)
        assert tokenizer.information == source


def test_a_corpus_says_that_its_information_is_predicted(tmp_path: Path):
    done = analysed(tmp_path / "work", {"a.mp4": video(1, 2)}, information="latent")
    spec = done.spec(tmp_path / "out")
    write(spec)
    statistics = load_statistics(done.plan, done.work)
    assert statistics.unit == PREDICTED_ELBO_UNIT
    finalise(spec, statistics, shape_of(mini()))
    info = CorpusInfo.from_bytes(spec.output.read("meta/info.json"))
    assert info.elbo_unit == PREDICTED_ELBO_UNIT
    for name in ("README.md", "report.html"):
        assert "predicted from the latent" in spec.output.read(name).decode()
    other = analysed(tmp_path / "other", {"a.mp4": video(1, 2)})
    other.spec(tmp_path / "none")
    measured = load_statistics(other.plan, other.work)
    with pytest.raises(ValueError, match="measured and predicted information cannot be merged"):
        merge_statistics(statistics, measured, plan_id="p")
