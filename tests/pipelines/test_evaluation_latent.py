"""The latent router in an evaluation: ranks, rates, points and cost of real decodes."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluations import FRAMES, SIDE, write_evaluation_videos, write_small_checkpoint
from scipy.stats import rankdata

from infotok_core.router import select
from infotok_core.tokenizer import Tokenizer
from pipelines.config import RunConfig, SpaceConfig, WindowConfig
from pipelines.evaluation.clips import ClipSource
from pipelines.evaluation.evaluate import Evaluation, evaluate
from pipelines.evaluation.measuring import Metrics
from pipelines.evaluation.prediction import spearman
from pipelines.evaluation.settings import Clocks, EvaluationConfig
from schemas.evaluation import Outcome

RUN = RunConfig(window=WindowConfig(frames=FRAMES), space=SpaceConfig(size=SIDE))
CLOCKS = Clocks(wall=time.perf_counter, cpu=time.process_time)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("latent")
    write_small_checkpoint(folder / "checkpoint", latent_router=8)
    return write_evaluation_videos(folder / "videos")


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder.parent / "checkpoint", information="latent")


@pytest.fixture(scope="module")
def found(folder: Path, predictor: Tokenizer) -> Evaluation:
    tokenizer = Tokenizer.load(folder.parent / "checkpoint")
    with ClipSource(str(folder / "moving.mp4"), RUN) as source:
        return evaluate(
            source, tokenizer, EvaluationConfig(rates=(1.0, 0.5)), metrics=Metrics(), workers=0,
            clocks=CLOCKS, say=lambda line: None, predictor=predictor,
        )  # fmt: skip


@pytest.fixture(scope="module")
def frames(folder: Path) -> list[np.ndarray]:
    with ClipSource(str(folder / "moving.mp4"), RUN) as source:
        return [window.frames_THWC for window in source.windows("moving.mp4")]


def outcome(found: Evaluation, router: str, selection: str) -> Outcome:
    (item,) = [
        item
        for item in found.outcomes
        if (item.router, item.selection, item.rate_target) == (router, selection, 0.5)
    ]
    return item


def test_predictions_rank_and_route_as_the_head_says(
    found: Evaluation, predictor: Tokenizer, frames: list[np.ndarray]
):
    assert found.prediction is not None
    routed = outcome(found, "global_latent", "latent")
    cells = [clip.cells for clip in found.clips]
    assert abs(sum(routed.num_tokens) - 0.5 * sum(cells)) <= 1
    for clip, source, count in zip(found.clips, frames, routed.num_tokens, strict=True):
        analysis = predictor.analyse(torch.from_numpy(source)[None])
        information = analysis.information_Bthw[0].numpy().astype(np.float16)
        assert clip.prediction is not None
        assert clip.prediction.elbo == pytest.approx(information.astype(np.float64).mean())
        keep = torch.from_numpy(select(information, count))[None]
        shown = predictor.reconstruct(analysis.codes_Bthw, keep)[0].numpy()
        error = np.square(source.astype(np.int64) - shown).sum()
        assert clip.point("latent", count).squared_error == error


def test_a_prediction_counts_no_decoder_and_costs_what_it_took(found: Evaluation):
    assert found.prediction is not None
    routed = outcome(found, "global_latent", "latent")
    assert set(routed.decoder_passes) == {0}
    times = [clip.prediction.analyse_ms for clip in found.clips if clip.prediction]
    assert routed.tokenise_ms == pytest.approx(np.median(times))
    assert found.prediction.cost_ratio > 1
    elbo = outcome(found, "global_elbo", "information")
    assert set(elbo.decoder_passes) == {1}


def test_the_rank_correlation_is_that_of_the_ranks():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(3, 4, 5)).astype(np.float16)
    second = (first + rng.normal(size=first.shape)).round(1).astype(np.float16)
    ranks = [rankdata(values) for values in (first, second)]
    assert spearman(first, second) == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert spearman(first, np.exp(first.astype(np.float64))) == pytest.approx(1)
    assert spearman(first, -first) == pytest.approx(-1)
    assert spearman(first, np.zeros_like(first)) is None
    with pytest.raises(ValueError, match="not pairs"):
        spearman(first, second[1:])
