"""One listing fixes every name and order of a run; whatever changes afterwards is named."""

from __future__ import annotations

import itertools
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import TOKENIZER
from work_folders import source_of

from pipelines.config import RunConfig
from pipelines.errors import ConflictError, IncompleteError, PipelineError, PlanMismatchError
from pipelines.id_set import IdSet
from pipelines.inspect import describe_object
from pipelines.plan import Plan, ensure_plan, known_plan, load_plan
from pipelines.plan_draft import draft_plan
from pipelines.sources import Source
from pipelines.storage import Store
from schemas.ids import video_id
from schemas.plan import PLAN_SCHEMA

SIZES = {"b.mp4": 20, "a.mp4": 10, "c/é.mp4": 30}


def config_of(**tables: dict[str, Any]) -> RunConfig:
    return RunConfig.model_validate(tables)


@pytest.fixture
def work(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "work"))


def planned(
    work: Store, source: Source, config: RunConfig | None = None, tokenizer: str = TOKENIZER
) -> Plan:
    return ensure_plan(source, config or RunConfig(), tokenizer=tokenizer, work=work)


def test_rows_are_sorted_by_uri_and_say_what_was_listed(work: Store):
    plan = planned(work, source_of(SIZES))
    rows = list(plan.rows())
    assert [row["uri"] for row in rows] == ["a.mp4", "b.mp4", "c/é.mp4"]
    assert [row["size"] for row in rows] == [10, 20, 30]
    assert [row["video_id"] for row in rows] == [video_id(row["uri"]) for row in rows]
    assert {row["version"] for row in rows} == {"v1"}
    head = plan.head
    assert (head.videos, head.num_bytes, head.shards) == (3, 60, 1)
    assert (head.source_root, head.tokenizer, head.split) == ("/source", TOKENIZER, "train")


def test_the_same_listing_in_another_order_gives_the_same_plan():
    backwards = dict(reversed(SIZES.items()))
    plans = [draft_plan(source_of(s), RunConfig(), tokenizer=TOKENIZER) for s in (SIZES, backwards)]
    assert plans[0].head == plans[1].head
    assert plans[0].parquet() == plans[1].parquet()


def test_the_place_of_the_source_is_not_part_of_the_identity():
    source = source_of(SIZES)
    moved = Source(root="s3://bucket/copy", objects=source_of(SIZES).objects)
    assert (
        draft_plan(source, RunConfig(), tokenizer=TOKENIZER).head.plan_id
        == draft_plan(moved, RunConfig(), tokenizer=TOKENIZER).head.plan_id
    )


@pytest.mark.parametrize(
    "tables",
    [
        {"window": {"overlap": 3}},
        {"window": {"fps": 24}},
        {"window": {"tail": "drop"}},
        {"space": {"size": 64}},
        {"limits": {"max_frames": 100}},
        {"tokenizer": {"dtype": "bfloat16"}},
    ],
)
def test_what_decides_pass_one_decides_the_plan_id(tables: dict[str, dict[str, Any]]):
    before = draft_plan(source_of(SIZES), RunConfig(), tokenizer=TOKENIZER).head
    after = draft_plan(source_of(SIZES), config_of(**tables), tokenizer=TOKENIZER).head
    assert before.plan_id != after.plan_id


@pytest.mark.parametrize(
    "tables",
    [
        {"routing": {"rate": 0.25}},
        {"output": {"format": "both", "file_bytes": 1000}},
        {"runtime": {"actors": 7, "watchdog_s": 1}},
        {"limits": {"stall_s": 5, "attempts": 1}},
        {"source_storage": {"endpoint_url": "http://127.0.0.1:1"}},
    ],
)
def test_what_does_not_decide_pass_one_may_change_between_starts(
    work: Store, tables: dict[str, dict[str, Any]]
):
    first = planned(work, source_of(SIZES))
    assert planned(work, source_of(SIZES), config_of(**tables)).head == first.head


def test_a_second_start_finds_the_plan_and_writes_nothing(work: Store):
    first = planned(work, source_of(SIZES))
    stamps = {path: (Path(work.url) / path).stat().st_mtime_ns for path, _ in work.list()}
    second = planned(work, source_of(SIZES))
    assert second.head == first.head
    assert stamps == {p: (Path(work.url) / p).stat().st_mtime_ns for p, _ in work.list()}
    assert load_plan(work).head == first.head


def changed(work: Store, source: Source, **how: Any) -> str:
    planned(work, source_of(SIZES))
    with pytest.raises(PlanMismatchError) as caught:
        planned(work, source, **how)
    assert work.url in str(caught.value)
    assert load_plan(work).head.videos == 3
    return str(caught.value)


def test_an_object_that_changed_is_named(work: Store):
    message = changed(work, source_of({**SIZES, "b.mp4": 21}))
    assert "b.mp4: changed since it was planned" in message
    assert "a.mp4" not in message


def test_an_object_of_the_same_size_but_another_version_is_named(work: Store):
    assert "a.mp4: changed" in changed(work, source_of(SIZES, version="v2"))


def test_an_object_that_is_gone_is_named(work: Store):
    left = {uri: size for uri, size in SIZES.items() if uri != "c/é.mp4"}
    assert "c/é.mp4: gone from the source" in changed(work, source_of(left))


def test_a_setting_that_changed_is_named_with_both_values(work: Store):
    config = config_of(window={"frames": 17}, space={"size": 128, "mode": "keep"})
    message = changed(work, source_of(SIZES), config=config)
    assert "window.frames: was 33, is 17" in message
    assert "space.size: was 256, is 128" in message
    assert "space.mode: was crop, is keep" in message
    assert "overlap" not in message


def test_another_tokenizer_and_another_shard_size_are_named(work: Store):
    config = config_of(output={"shard_source_bytes": 5})
    message = changed(work, source_of(SIZES), config=config, tokenizer="e" * 64)
    assert "tokenizer: was ffffffffffffffff…, is eeeeeeeeeeeeeeee…" in message
    assert f"output.shard_source_bytes: was {2 << 30}, is 5" in message


def test_many_changes_are_counted_and_the_first_are_named(work: Store):
    many = {f"{index:03d}.mp4": 1 for index in range(50)}
    planned(work, source_of(many))
    with pytest.raises(PlanMismatchError, match="and 45 more") as caught:
        planned(work, source_of(dict.fromkeys(many, 2)))
    assert str(caught.value).count(": changed since") == 5


def test_added_objects_are_left_out_with_a_warning(work: Store, caplog: pytest.LogCaptureFixture):
    first = planned(work, source_of(SIZES))
    with caplog.at_level(logging.WARNING):
        second = planned(work, source_of({**SIZES, "new.mp4": 5}))
    assert second.head == first.head
    assert [row["uri"] for row in second.rows()] == sorted(SIZES)
    assert "1 objects were added" in caplog.text
    assert "new.mp4" in caplog.text


def test_an_addition_does_not_hide_a_change(work: Store):
    message = changed(work, source_of({**SIZES, "a.mp4": 11, "new.mp4": 5}))
    assert "a.mp4: changed" in message
    assert "new.mp4" not in message


def test_an_empty_listing_is_an_error(work: Store):
    with pytest.raises(PipelineError, match="no objects to tokenise in /source"):
        planned(work, source_of({}))
    assert list(work.list()) == []


def test_a_uri_that_is_listed_twice_is_refused():
    twice = Source(
        root="/source",
        objects=iter([*source_of({"a.mp4": 1}).objects, *source_of({"a.mp4": 1}).objects]),
    )
    with pytest.raises(PipelineError, match=r"lists a\.mp4 more than once"):
        draft_plan(twice, RunConfig(), tokenizer=TOKENIZER)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.integers(1, 100))
def test_shards_are_runs_of_videos_up_to_a_number_of_bytes(sizes: list[int], target: int):
    listing = {f"{index:04d}": size for index, size in enumerate(sizes)}
    config = config_of(output={"shard_source_bytes": target})
    draft = draft_plan(source_of(listing), config, tokenizer=TOKENIZER)
    head = draft.head
    shards = [shard for table in draft.tables() for shard in table["shard"].to_pylist()]
    assert shards[0] == 0
    assert head.shards == shards[-1] + 1
    assert all(after - before in (0, 1) for before, after in itertools.pairwise(shards))
    for shard in range(head.shards):
        inside = [size for size, s in zip(sizes, shards, strict=True) if s == shard]
        # One video may be larger than a shard; it then is alone but for empty ones.
        assert sum(inside) <= target or sum(size > 0 for size in inside) == 1
        if shard + 1 < head.shards:
            following = sizes[shards.index(shard + 1)]
            assert sum(inside) + following > target


def test_a_shard_gives_its_own_rows_in_order(work: Store):
    listing = {f"{index:02d}.mp4": 10 for index in range(10)}
    plan = planned(work, source_of(listing), config_of(output={"shard_source_bytes": 30}))
    assert plan.head.shards == 4
    rows = [row for shard in range(4) for row in plan.shard(shard)]
    assert rows == list(plan.rows())
    assert [row["shard"] for row in plan.shard(2)] == [2, 2, 2]


def test_rows_are_streamed_by_row_group(work: Store):
    listing = {f"{index:06d}": 1 for index in range(40_000)}
    plan = planned(work, source_of(listing))
    file = pq.ParquetFile(Path(work.url) / "plan.parquet")
    assert file.num_row_groups == 3
    rows = plan.rows()
    assert next(rows)["uri"] == "000000"
    assert sum(1 for _ in rows) == 39_999


def test_extra_columns_are_kept_with_their_types(work: Store):
    extras = {"a.mp4": {"label": "é", "n": 1}, "b.mp4": {"label": None, "n": None}}
    schema = pa.schema([("label", pa.string()), ("n", pa.int64())])
    plan = planned(work, source_of({"a.mp4": 1, "b.mp4": 2}, extras=extras, extra_schema=schema))
    assert [json.loads(row["extra"]) for row in plan.rows()] == [extras["a.mp4"], extras["b.mp4"]]
    assert pa.schema(load_plan(work).head.extra_fields()) == schema


def test_an_extra_column_with_a_name_of_ours_is_refused():
    schema = pa.schema([("tokens", pa.string())])
    with pytest.raises(PipelineError, match="'tokens' has the name of one of ours"):
        draft_plan(source_of(SIZES, extra_schema=schema), RunConfig(), tokenizer=TOKENIZER)


def test_a_changed_extra_column_is_a_changed_object(work: Store):
    schema = pa.schema([("n", pa.int64())])

    def source(n: int) -> Source:
        return source_of({"a.mp4": 1}, extras={"a.mp4": {"n": n}}, extra_schema=schema)

    planned(work, source(1))
    with pytest.raises(PlanMismatchError, match=r"a\.mp4: changed"):
        planned(work, source(2))


def test_a_plan_can_be_described(work: Store):
    planned(work, source_of(SIZES))
    told = describe_object("plan.parquet", work.read("plan.parquet"))
    assert "3 videos in 1 shards" in told
    assert "b.mp4" in told


def test_no_plan_names_the_command_that_makes_one(work: Store):
    with pytest.raises(IncompleteError, match="infotok plan INPUT OUTPUT"):
        load_plan(work)


def rewritten(work: Store, **fields: Any) -> None:
    planned(work, source_of(SIZES))
    document = json.loads(work.read("plan.json"))
    work.replace("plan.json", json.dumps({**document, **fields}).encode())


def test_a_plan_of_another_format_version_is_refused(work: Store):
    rewritten(work, format_version=999)
    with pytest.raises(
        PlanMismatchError, match="format_version 999; this release reads version 1 only"
    ):
        load_plan(work)


def test_a_damaged_plan_is_refused(work: Store):
    rewritten(work, videos="many")
    with pytest.raises(PlanMismatchError, match=r"plan\.json cannot be used"):
        load_plan(work)


@pytest.mark.parametrize("data", [b"", b"{trunc", b"[]"])
def test_a_plan_that_is_not_json_is_refused(work: Store, data: bytes):
    planned(work, source_of(SIZES))
    work.replace("plan.json", data)
    with pytest.raises(PlanMismatchError, match=r"plan\.json cannot be used"):
        load_plan(work)


def test_a_start_that_died_before_the_head_is_taken_up(work: Store):
    planned(work, source_of(SIZES))
    work.delete("plan.json")
    assert planned(work, source_of(SIZES)).head.videos == 3


def test_a_start_that_died_before_the_head_of_another_listing_says_what_to_delete(work: Store):
    planned(work, source_of(SIZES))
    work.delete("plan.json")
    with pytest.raises(ConflictError, match=r"killed .* no other run .* delete .*plan\.parquet"):
        planned(work, source_of({"x.mp4": 1}))


def test_the_table_has_the_schema_of_the_contract(work: Store):
    plan = planned(work, source_of(SIZES))
    table = pq.read_table(Path(plan.work.url) / "plan.parquet")
    assert table.schema.equals(PLAN_SCHEMA)


def test_a_plan_is_known_without_looking_at_the_source(work: Store):
    source = source_of(SIZES)
    assert known_plan(source, RunConfig(), tokenizer=TOKENIZER, work=work) is None
    first = planned(work, source)
    gone = Source(root="/source", objects=source_of({}).objects)
    plan = known_plan(gone, RunConfig(), tokenizer=TOKENIZER, work=work)
    assert plan is not None
    assert plan.head == first.head


def test_a_plan_that_is_trusted_must_still_be_of_this_source_and_configuration(work: Store):
    planned(work, source_of(SIZES))
    moved = Source(root="/elsewhere", objects=source_of(SIZES).objects)
    with pytest.raises(PlanMismatchError) as caught:
        known_plan(moved, config_of(window={"frames": 17}), tokenizer="e" * 64, work=work)
    for change in ("source: was /source, is /elsewhere", "window.frames: was 33", "tokenizer: was"):
        assert change in str(caught.value)


def test_rows_are_read_by_truth_values_by_block_and_by_id(work: Store):
    listing = {f"{index:06d}": 1 for index in range(20_000)}
    plan = planned(work, source_of(listing))
    assert plan.blocks == 5
    assert [plan.block_videos(block) for block in (0, 4)] == [4096, 20_000 - 4 * 4096]
    last = plan.block(4)
    assert (len(last), last[0]["uri"], last[0]["block"]) == (20_000 - 4 * 4096, "016384", 4)
    wanted = plan.among(IdSet([video_id("000007"), video_id("019999"), video_id("none")]))
    assert [(row["uri"], row["block"]) for row in plan.rows(wanted)] == [
        ("000007", 0),
        ("019999", 4),
    ]
    [(start, table)] = plan.columns("size", wanted=wanted & (np.arange(20_000) > 16_384))
    assert (start, table.column_names, table.num_rows) == (16_384, ["size"], 20_000 - 16_384)
