"""One threshold for all tokens, from the windows of pass one to a sound corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from corpora_by_hand import made, without_charts
from work_folders import (
    BROKEN,
    Analysed,
    analysed,
    configured,
    mask_of,
    rows_of,
    store_video,
    video,
    window,
    write,
)

from infotok_core.config import mini
from pipelines.card import dataset_card
from pipelines.config import RunConfig
from pipelines.errors import AccountingError, PipelineError, PlanMismatchError
from pipelines.finalise import finalise
from pipelines.growing import open_growth
from pipelines.merging import CorpusPart, merge
from pipelines.rate_rules import asked_of, rate_rule
from pipelines.receipt_store import ReceiptStore
from pipelines.report_clips import WindowFacts
from pipelines.report_sections import scatter
from pipelines.shards import shard_spec
from pipelines.statistics import STATISTICS, freeze_statistics, sample_videos
from pipelines.storage import Store
from pipelines.validate import validate
from schemas.info import CorpusInfo
from schemas.token_bins import TokenBins, score_bin, token_score_bins
from schemas.token_rules import TokenRule

VIDEOS = {
    "a.mp4": video(1, 20),
    "b.mp4": BROKEN,
    "c.mp4": video(2, 3, 0.4),
    "d.mp4": [window(0.0, index=0), *video(3, 2, 0.01)[1:]],
}
THRESHOLD = {"router": "token_threshold"}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Analysed:
    return analysed(tmp_path_factory.mktemp("work"), VIDEOS, shard_source_bytes=1500, **THRESHOLD)


@pytest.mark.parametrize("rate", [1 / 16, 0.25, 0.5, 0.9, 1.0])
def test_every_shard_meets_the_budget_to_the_token(done: Analysed, tmp_path: Path, rate: float):
    spec = done.spec(tmp_path, rate=rate)
    assert isinstance(spec.rule, TokenRule)
    commits = write(spec)
    assert len(commits) > 1
    cells = sum(commit.totals.cells for commit in commits)
    tokens = sum(commit.totals.tokens for commit in commits)
    assert abs(tokens - rate * cells) <= 0.5 * len(commits)
    assert min(row["num_tokens"] for row in rows_of(spec)) >= 192 // 16


def test_what_is_kept_scores_no_less_than_what_is_dropped(done: Analysed, tmp_path: Path):
    spec = done.spec(tmp_path)
    write(spec)
    assert isinstance(spec.rule, TokenRule)
    edge = score_bin(spec.rule.threshold)
    maps = {
        (uri, one.span.window_index): one.information
        for uri, windows in VIDEOS.items()
        if isinstance(windows, list)
        for one in windows
    }
    rows = rows_of(spec)
    assert len(rows) == len(maps)
    for row in rows:
        information, keep = maps[row["source"], row["window_index"]], mask_of(row)
        bins, least = token_score_bins(information), 192 // 16
        assert (bins[row["num_tokens"] :] <= edge).all()
        assert (bins[least : row["num_tokens"]] >= edge).all()
        assert information[keep].min() >= information[~keep].max(initial=0)


def test_another_rate_selects_from_the_same_order(done: Analysed, tmp_path: Path):
    half, quarter = done.spec(tmp_path / "half"), done.spec(tmp_path / "quarter", rate=0.25)
    write(half)
    write(quarter)
    for more, less in zip(rows_of(half), rows_of(quarter), strict=True):
        assert not (mask_of(less) & ~mask_of(more)).any()


def test_other_routers_read_the_same_analyses(done: Analysed, tmp_path: Path):
    plain = analysed(tmp_path / "work", VIDEOS, shard_source_bytes=1500)
    one, other = done.spec(tmp_path / "1", router="global_elbo"), plain.spec(tmp_path / "2")
    assert one.rule == other.rule
    write(one)
    write(other)
    assert rows_of(one) == rows_of(other)


def test_tokens_are_counted_for_this_router_alone(done: Analysed, tmp_path: Path):
    plain = analysed(tmp_path, VIDEOS)
    assert plain.receipt("a.mp4").token_bins is None
    assert b"token_bins" not in plain.work.store.read(f"videos/{_id(plain, 'a.mp4')}.json")
    plain.statistics()
    assert b"token_bins" not in plain.work.store.read(STATISTICS)
    counted = done.statistics()
    assert counted.token_bins is not None
    parts = [done.receipt(uri).token_bins for uri in ("d.mp4", "a.mp4", "c.mp4")]
    assert counted.token_bins == TokenBins.merge(*[part for part in parts if part is not None])
    assert counted.bins == plain.statistics().bins


def _id(done: Analysed, uri: str) -> str:
    return next(row["video_id"] for row in done.plan.rows() if row["uri"] == uri)


def test_statistics_without_the_tokens_are_refused_with_what_to_do(tmp_path: Path):
    plain = analysed(tmp_path / "work", VIDEOS)
    with pytest.raises(PlanMismatchError, match=r"another work folder \(--work\), or keep"):
        plain.spec(tmp_path / "out", **THRESHOLD)


def test_another_least_rate_than_they_were_counted_with_is_refused(done: Analysed, tmp_path: Path):
    with pytest.raises(PlanMismatchError, match=r"min_rate = 0\.0625, not 0\.125: keep the former"):
        done.spec(tmp_path, min_rate=0.125)


def test_a_video_whose_tokens_were_not_counted_is_named(tmp_path: Path):
    done = analysed(tmp_path, {"a.mp4": VIDEOS["a.mp4"]})
    with pytest.raises(AccountingError, match=r"a\.mp4: its tokens were not counted"):
        freeze_statistics(done.plan, done.work, token_floor=1 / 16)


def test_a_corpus_in_which_nothing_came_through_is_finished(tmp_path: Path):
    done = analysed(tmp_path / "work", {"b.mp4": BROKEN}, **THRESHOLD)
    assert done.statistics().token_bins == TokenBins(min_rate=1 / 16)
    assert [commit.totals.clips for commit in write(done.spec(tmp_path / "out"))] == [0]


def test_packed_and_reopened_receipts_keep_their_tokens(tmp_path: Path):
    done = analysed(tmp_path, VIDEOS, **THRESHOLD)
    before = done.statistics()
    store = ReceiptStore(done.plan, done.work.store)
    store.pack(0, {})
    done.work.store.delete(STATISTICS)
    assert done.statistics() == before
    store.reopen(0, [_id(done, "b.mp4")])
    store_video(done.work, "b.mp4", video(9, 2), token_floor=1 / 16)
    for path in (STATISTICS, "summary.json"):
        done.work.store.delete(path)
    after = done.statistics()
    assert after.windows == before.windows + 2
    assert after.token_bins is not None
    assert after.token_bins.tokens == after.tokens


def test_a_sample_gives_a_threshold_and_an_approximate_rate(tmp_path: Path):
    videos = {f"{n}.mp4": video(n, 3, level=0.02 + 0.002 * n) for n in range(24)}
    done = analysed(tmp_path / "work", videos, **THRESHOLD)
    statistics = done.statistics(sample_videos(done.plan, 0.25))
    output = Store(str(tmp_path / "out"))
    spec = shard_spec(done.config, done.plan, done.work, output, statistics)
    write(spec)
    with without_charts():
        assert finalise(spec, statistics, mini())["rate_from_sample"] is True
    info = CorpusInfo.from_bytes(output.read("meta/info.json"))
    assert abs(info.realised_rate - 0.5) < 0.1
    assert validate(output).faults == ()


def test_a_sample_without_information_is_no_base_for_a_threshold(tmp_path: Path):
    done = analysed(tmp_path / "work", {f"{n}.mp4": BROKEN for n in range(8)}, **THRESHOLD)
    statistics = done.statistics(sample_videos(done.plan, 0.5))
    with pytest.raises(PipelineError, match=r"larger statistics\.sample"):
        shard_spec(done.config, done.plan, done.work, Store(str(tmp_path / "out")), statistics)


def test_a_finished_corpus_is_sound_and_says_how_its_tokens_were_chosen(tmp_path: Path):
    with without_charts():
        part = made(tmp_path, VIDEOS, **THRESHOLD)
    assert validate(part.store).faults == ()
    assert isinstance(part.info.routing, TokenRule)
    assert part.info.realised_rate == pytest.approx(0.5, abs=0.001)
    assert part.statistics.token_bins is not None
    assert "threshold solved so that the corpus keeps 0.5" in dataset_card(part.info)


def test_a_corpus_that_misses_its_rate_is_found(tmp_path: Path):
    with without_charts():
        part = made(tmp_path, VIDEOS, **THRESHOLD)
    routing = part.info.routing.model_copy(update={"target": 0.4})
    info = part.info.model_copy(update={"routing": routing})
    part.store.replace("meta/info.json", info.to_bytes())
    (fault,) = validate(part.store).faults
    assert "rate 0.4 was asked for, 0.5" in str(fault)


def test_corpora_of_one_router_merge_and_of_two_do_not(tmp_path: Path):
    with without_charts():
        one = made(tmp_path / "1", {"a.mp4": video(1, 4)}, **THRESHOLD)
        two = made(tmp_path / "2", {"b.mp4": video(2, 4, 0.3)}, **THRESHOLD)
        plain = made(tmp_path / "3", {"c.mp4": video(3, 4)})
        merge([one, two], Store(str(tmp_path / "both")))
        both = CorpusPart.read(Store(str(tmp_path / "both")))
        with pytest.raises(PlanMismatchError, match="budget: token_threshold and exact"):
            merge([one, plain], Store(str(tmp_path / "no")))
    assert validate(both.store).faults == ()
    assert one.statistics.token_bins is not None
    assert two.statistics.token_bins is not None
    assert both.statistics.token_bins == TokenBins.merge(
        one.statistics.token_bins, two.statistics.token_bins
    )
    assert "threshold 0." in both.store.read("README.md").decode()


@pytest.mark.parametrize("same", [True, False])
def test_new_videos_join_by_the_threshold_of_the_corpus_or_one_of_their_own(
    tmp_path: Path, same: bool
):
    with without_charts():
        corpus = made(tmp_path / "first", VIDEOS, **THRESHOLD)
        growth = open_growth(corpus.store, Store(str(tmp_path / "work")))
        rule = growth.rule("same" if same else "new")
        more = {"b.mp4": video(7, 3), "e.mp4": video(8, 4, 0.3)}
        made(Path(growth.folder.url), more, output=growth.corpus, rule=rule, **THRESHOLD)
        info = growth.finish("same" if same else "new")
    assert validate(corpus.store).faults == ()
    first, second = info.generations
    assert (second.routing == first.routing) == same
    assert (abs(second.totals.rate - 0.5) < 0.001) != same
    grown = CorpusPart.read(corpus.store).statistics
    assert grown.token_bins is not None
    assert grown.token_bins.tokens == info.totals.cells


def test_the_report_draws_no_curve_where_the_information_of_a_window_does_not_tell_its_rate(
    tmp_path: Path,
):
    pytest.importorskip("matplotlib")
    facts = [
        WindowFacts(
            video_id="0" * 32, source="a.mp4", window_index=index, start_time_s=0.0, end_time_s=1.0,
            num_tokens=96, rate=0.5, elbo=0.1 + index,
        )
        for index in range(2)
    ]  # fmt: skip
    with without_charts():
        plain = made(tmp_path / "1", {"a.mp4": video(1, 4)}).info
        counted = made(tmp_path / "2", {"a.mp4": video(1, 4)}, **THRESHOLD).info
    assert "dashed: the rule" in scatter(facts, plain)
    assert "dashed" not in scatter(facts, counted)
    assert "<svg" in scatter(facts, counted)


def test_the_choice_belongs_to_pass_two_and_to_nothing_before():
    plain = RunConfig()
    chosen = configured(plain, **THRESHOLD)
    assert plain.analysis_identity() == chosen.analysis_identity()
    assert plain.tokens_identity() != chosen.tokens_identity()
    assert (plain.routing.token_floor, chosen.routing.token_floor) == (None, 1 / 16)


@pytest.mark.parametrize(
    "routing",
    [THRESHOLD, {}, {"router": "static"}, {"budget": "paper"}, {"expected_elbo": 0.1}],
)
def test_what_a_rule_will_ask_for_is_known_before_the_statistics(
    done: Analysed, tmp_path: Path, routing: dict[str, Any]
):
    config = configured(done.config, **{"router": "global_elbo", **routing})
    rule = rate_rule(config, done.statistics())
    asked = asked_of(config.routing)
    assert {name: getattr(rule, name) for name in asked} == asked
