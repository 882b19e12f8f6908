"""A corpus that is finished takes in new videos; killed anywhere it goes on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from corpora_by_hand import DyingStore, KilledError, bytes_of, made, without_charts
from work_folders import BROKEN, Videos, source_of, video

from pipelines.claims import claim_output, stored_config
from pipelines.config import RunConfig
from pipelines.errors import IncompleteError, PipelineError, PlanMismatchError
from pipelines.growing import Growth, only, open_growth
from pipelines.merging import CorpusPart
from pipelines.storage import Store
from pipelines.validate import validate
from schemas.ids import video_id
from schemas.layout import INFO_PATH, MANIFEST_PATH

FIRST: Videos = {"a.mp4": video(1, 3), "b.mp4": BROKEN}
NOTHING = source_of({})
ADDED: Videos = {"b.mp4": video(2, 2, 0.3), "c.mp4": video(3, 1, 0.05)}
LIKE_IT = {"output": {"format": "both"}, "window": {"frames": 9}}
"""The configuration of the corpus, as far as it matters here."""


@pytest.fixture(autouse=True)
def _plain() -> Iterator[None]:
    with without_charts():
        yield


@pytest.fixture
def output(tmp_path: Path) -> Store:
    return made(tmp_path / "first", FIRST, format="both").store


def grow(output: Store, work: Store, added: Videos = ADDED, *, same: bool) -> Growth:
    """All of an appending but its end."""
    growth = open_growth(output, work)
    rule = growth.rule("same" if same else "new")
    made(Path(growth.folder.url), added, output=growth.corpus, rule=rule, format="both")
    return growth


@pytest.mark.parametrize("same", [True, False])
def test_a_grown_corpus_is_sound_and_says_by_which_rule(output: Store, tmp_path: Path, same: bool):
    before = output.read("data/train-000000-00.parquet")
    info = grow(output, Store(str(tmp_path / "work")), same=same).finish("same" if same else "new")
    assert validate(output).faults == ()
    assert (info.videos.listed, info.videos.committed, info.videos.quarantined) == (3, 3, 0)
    first, second = info.generations
    assert (second.routing == first.routing) == same
    assert second.own_statistics != same
    # Its own rule meets the rate; that of others does with these videos what it does.
    assert (abs(second.totals.rate - 0.5) < 0.01) != same
    assert output.read("data/train-000000-00.parquet") == before
    card = output.read("README.md").decode()
    assert ("solved on the corpus it was appended to" in card) == same


def test_a_generation_of_nothing_is_said_to_be_one(output: Store, tmp_path: Path):
    growth = grow(output, Store(str(tmp_path / "work")), {"b.mp4": BROKEN}, same=True)
    info = growth.finish("same")
    assert (info.videos.committed, info.videos.quarantined) == (1, 1)
    assert "| from shard 1 | nothing came through |" in output.read("README.md").decode()
    assert validate(output).faults == ()


def test_the_next_appending_is_another_one(output: Store, tmp_path: Path):
    work = Store(str(tmp_path / "work"))
    grow(output, work, same=True).finish("same")
    info = grow(output, work, {"z.mp4": video(8, 1)}, same=False).finish("new")
    assert len(info.generations) == 3
    assert [run.own_statistics for run in info.generations] == [True, False, True]
    assert validate(output).faults == ()


def test_new_videos_and_failed_ones_are_told_apart(output: Store, tmp_path: Path):
    growth = open_growth(output, Store(str(tmp_path / "work")))
    listed = dict.fromkeys(["a.mp4", "b.mp4", "c.mp4"], 10)

    def names(wanted) -> list[str]:
        return [item.uri for item in only(source_of(listed), wanted).objects]

    assert names(growth.new()) == ["c.mp4"]
    assert names(growth.set_aside(()).__contains__) == ["b.mp4"]
    assert names(growth.set_aside(["TRUNCATED"]).__contains__) == ["b.mp4"]
    assert names(growth.set_aside(["NOT_FOUND"]).__contains__) == []


def test_killed_before_any_write_readers_see_the_old_corpus_and_the_same_command_goes_on(
    output: Store, tmp_path: Path
):
    work = Store(str(tmp_path / "work"))
    grow(output, work, same=True)
    saved = Path(shutil.copytree(tmp_path, tmp_path.with_name("saved")))
    open_growth(output, work).finish("same")
    expected = bytes_of(output)
    for name in ("first", "work"):
        shutil.rmtree(tmp_path / name)
        shutil.copytree(saved / name, tmp_path / name)
    before = output.read(MANIFEST_PATH)
    killed = 0
    while True:
        # Every start finds what the one before has left.
        growth = open_growth(output, work)
        dying = DyingStore(output.url, killed)
        try:
            Growth(folder=growth.folder, output=dying, base=growth.base).finish("same")
        except KilledError:
            assert output.read(MANIFEST_PATH) == before
            killed += 1
            continue
        break
    assert killed > 8
    assert bytes_of(output) == expected


def test_killed_between_manifest_and_done_it_comes_to_the_same(output: Store, tmp_path: Path):
    work = Store(str(tmp_path / "work"))
    growth = grow(output, work, same=False)
    growth.finish("new")
    expected = bytes_of(output)
    growth.folder.delete("done.json")
    made(Path(growth.folder.url), ADDED, output=growth.corpus, format="both")
    open_growth(output, work).finish("new")
    assert bytes_of(output) == expected


def test_nothing_can_be_appended_to_what_is_not_finished(output: Store, tmp_path: Path):
    work = Store(str(tmp_path / "work"))
    with pytest.raises(IncompleteError):
        open_growth(Store(str(tmp_path / "empty")), work)
    other = made(tmp_path / "other", {"q.mp4": video(5, 4)}, format="parquet")
    output.replace(INFO_PATH, other.info.to_bytes())
    with pytest.raises(PipelineError, match="is not that of the manifest"):
        open_growth(output, work)


def test_an_appending_that_found_nothing_does_not_remember_the_corpus(
    output: Store, tmp_path: Path
):
    work = Store(str(tmp_path / "work"))
    open_growth(output, work)
    grow(output, Store(str(tmp_path / "elsewhere")), same=True).finish("same")
    assert open_growth(output, work).base.info == CorpusPart.read(output).info


def test_the_run_that_made_it_may_not_write_to_what_has_grown_but_the_merge_may(
    output: Store, tmp_path: Path
):
    key, config = CorpusPart.read(output).info.tokens_key, {"output": {"format": "both"}}
    for _ in range(2):
        claim_output(output, key, config, instead="")
    assert stored_config(output) == config
    grown = grow(output, Store(str(tmp_path / "work")), same=True).finish("same")
    with pytest.raises(PlanMismatchError, match="has grown since"):
        claim_output(output, key, config, instead="")
    # A merge claims its output by the key that its head then has.
    merged = Store(str(tmp_path / "merged"))
    claim_output(merged, grown.tokens_key, config, instead="")
    for path in ("meta/info.json", "meta/manifest.parquet"):
        merged.replace(path, output.read(path))
    claim_output(merged, grown.tokens_key, config, instead="")
    with pytest.raises(PlanMismatchError, match=r"(?s)another corpus.*Elsewhere"):
        claim_output(merged, key, config, instead="Elsewhere")


def test_another_configuration_is_refused_before_the_work(output: Store, tmp_path: Path):
    growth = open_growth(output, Store(str(tmp_path / "work")))
    config = RunConfig.model_validate({**LIKE_IT, "window": {"frames": 17}})
    with pytest.raises(PlanMismatchError, match=r"window: .*9.* and .*17"):
        growth.check(config, growth.base.info.tokenizer, NOTHING)
    predicted = RunConfig.model_validate({**LIKE_IT, "analysis": {"information": "latent"}})
    with pytest.raises(PlanMismatchError, match=r"elbo_unit: .*predicted"):
        growth.check(predicted, growth.base.info.tokenizer, NOTHING)
    right = RunConfig.model_validate(LIKE_IT)
    growth.check(right, growth.base.info.tokenizer, NOTHING)
    growth.check(right, growth.base.info.tokenizer, NOTHING, "new")
    for change, named in (
        ({"router": "token_threshold"}, "budget: exact and token_threshold"),
        ({"router": "static"}, "budget: exact and static"),
        ({"budget": "paper"}, "budget: exact and paper"),
        ({"rate": 0.25}, r"rate: 0\.5 and 0\.25"),
        ({"exponent": 0.5}, r"exponent: 1\.0 and 0\.5"),
    ):
        other = RunConfig.model_validate({**LIKE_IT, "routing": change})
        # By the rule of the corpus it makes no difference.
        growth.check(other, growth.base.info.tokenizer, NOTHING, "same")
        with pytest.raises(PlanMismatchError, match=named):
            growth.check(other, growth.base.info.tokenizer, NOTHING, "new")
    assert video_id("a.mp4") in {*CorpusPart.read(output).video_ids()}


def test_another_source_root_or_other_columns_are_refused_before_the_work(
    output: Store, tmp_path: Path
):
    growth = open_growth(output, Store(str(tmp_path / "work")))
    config, tokenizer = (
        RunConfig.model_validate(LIKE_IT),
        growth.base.info.tokenizer,
    )
    with pytest.raises(PlanMismatchError, match="source_root: /source and /elsewhere"):
        growth.check(config, tokenizer, replace(NOTHING, root="/elsewhere"))
    labelled = replace(NOTHING, extra_schema=pa.schema([("n", pa.int64())]))
    with pytest.raises(PlanMismatchError, match=r"extra_columns: \{\} and \{'n': 'int64'\}"):
        growth.check(config, tokenizer, labelled)
