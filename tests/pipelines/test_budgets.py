"""How many tokens each window gets, whatever the corpus is like: through pass two, to the files."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from work_folders import Analysed, analysed, mask_of, noise, rows_of, video, window, write

from schemas.windows import WindowAnalysis

CELLS = 192
VIDEOS = {"a.mp4": video(1, 20), "c.mp4": video(2, 3, 0.4), "d.mp4": video(3, 1)}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Analysed:
    return analysed(tmp_path_factory.mktemp("work"), VIDEOS)


levels = st.just(0.0) | st.floats(1e-4, 0.02) | st.floats(0.05, 1.5)
shapes = st.sampled_from([(3, 8, 8), (1, 8, 8), (2, 16, 16)])


@st.composite
def corpora(draw: st.DrawFn) -> list[list[WindowAnalysis]]:
    count = draw(st.integers(1, 3))
    return [
        [
            noise(draw(st.integers(0, 99)), draw(levels), index=index, shape=draw(shapes))
            for index in range(draw(st.integers(1, 4)))
        ]
        for _ in range(count)
    ]


@given(corpora(), st.sampled_from([1 / 16, 0.1, 0.25, 0.5, 0.77, 1.0]))
@settings(max_examples=25)
def test_the_exact_budget_is_met_for_any_distribution(
    videos: Sequence[Sequence[WindowAnalysis]], rate: float
):
    with tempfile.TemporaryDirectory() as folder:
        named = {f"{index}.mp4": windows for index, windows in enumerate(videos)}
        done = analysed(Path(folder, "work"), named, rate=rate)
        [commit] = write(done.spec(Path(folder, "out")))
    asked = rate * commit.totals.cells
    # 0.1 % as promised, and one token of the shard.
    assert abs(commit.totals.tokens - asked) <= 1e-3 * asked + 1


def test_the_exact_budget_is_met_within_a_thousandth_in_spite_of_clipping(tmp_path: Path):
    rng = np.random.default_rng(5)
    spread = 0.05 * rng.lognormal(0, 1.5, 60)
    windows = [
        noise(index, level, index=index, shape=(9, 16, 16)) for index, level in enumerate(spread)
    ]
    done = analysed(tmp_path / "work", {"a.mp4": windows})
    for rate in (0.1, 0.25, 0.5, 0.9):
        spec = done.spec(tmp_path / f"{rate}", rate=rate)
        [commit] = write(spec)
        assert commit.totals.tokens / commit.totals.cells == pytest.approx(rate, rel=1e-3)
        rates = [row["rate"] for row in rows_of(spec)]
        assert max(rates) > min(rates)
        assert min(rates) >= 1 / 16 - 1 / 2304


def test_a_corpus_without_any_information_keeps_the_asked_rate(tmp_path: Path):
    black = [window(0.0, index=index) for index in range(4)]
    for budget in ("exact", "paper"):
        done = analysed(tmp_path / budget, {"black.mp4": black}, budget=budget, rate=0.25)
        [commit] = write(done.spec(tmp_path / f"{budget}-out"))
        assert commit.totals.tokens == CELLS


def test_a_static_budget_gives_each_window_the_same(done: Analysed, tmp_path: Path):
    spec = done.spec(tmp_path, router="static", rate=0.3)
    write(spec)
    assert {row["num_tokens"] for row in rows_of(spec)} == {round(0.3 * CELLS)}


def test_the_budget_of_the_paper_follows_its_equation(done: Analysed, tmp_path: Path):
    spec = done.spec(tmp_path, budget="paper", rate=0.4)
    write(spec)
    rows = rows_of(spec)
    mean = np.mean([row["elbo"] for row in rows])
    for row in rows:
        rate = min(max(0.4 * row["elbo"] / mean, 1 / 16), 1.0)
        assert row["rate_target"] == pytest.approx(rate, rel=1e-3)
        assert abs(row["num_tokens"] - rate * CELLS) <= 0.6


def test_a_given_expectation_replaces_the_measured_one(done: Analysed, tmp_path: Path):
    spec = done.spec(tmp_path, expected_elbo=0.2, rate=0.5)
    write(spec)
    for row in rows_of(spec):
        rate = min(max(0.5 * row["elbo"] / 0.2, 1 / 16), 1.0)
        assert row["rate_target"] == pytest.approx(rate, rel=1e-3)


def test_an_exponent_keeps_the_budget_and_deals_it_out_more_evenly(done: Analysed, tmp_path: Path):
    plain, flat = done.spec(tmp_path / "plain"), done.spec(tmp_path / "flat", exponent=0.5)
    [steep_commit], [flat_commit] = write(plain), write(flat)
    assert plain.key != flat.key
    assert abs(flat_commit.totals.tokens - steep_commit.totals.tokens) <= 1
    pairs = list(zip(rows_of(plain), rows_of(flat), strict=True))
    spread = [np.std([row["num_tokens"] for row in side]) for side in zip(*pairs, strict=True)]
    assert spread[1] < spread[0]
    for _, row in pairs:
        rate = min(max(flat.rule.scale * row["elbo"] ** 0.5, 1 / 16), 1.0)
        assert abs(row["num_tokens"] - rate * CELLS) <= 1.1


def test_another_rate_selects_from_the_same_order(done: Analysed, tmp_path: Path):
    half, quarter = done.spec(tmp_path / "half"), done.spec(tmp_path / "quarter", rate=0.25)
    write(half)
    write(quarter)
    assert half.key != quarter.key
    for more, less in zip(rows_of(half), rows_of(quarter), strict=True):
        assert more["clip_id"] == less["clip_id"]
        assert less["num_tokens"] <= more["num_tokens"]
        # Fewer tokens are the more informative part of the more.
        assert not (mask_of(less) & ~mask_of(more)).any()


def test_a_rate_below_the_least_one_is_for_the_static_router_alone(done: Analysed, tmp_path: Path):
    with pytest.raises(ValueError, match=r"rate 0\.05 is below routing\.min_rate"):
        done.spec(tmp_path, rate=0.05)
    spec = done.spec(tmp_path, rate=0.02, router="static")
    write(spec)
    assert {row["num_tokens"] for row in rows_of(spec)} == {round(0.02 * CELLS)}
