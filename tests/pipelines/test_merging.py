"""Corpora become one, whatever the order of merging; what does not fit together is refused."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from corpora_by_hand import DyingStore, KilledError, bytes_of, made, without_charts
from hypothesis import given, settings
from hypothesis import strategies as st
from work_folders import BROKEN, video

from jobs.cli import main
from pipelines.corpus_reader import CorpusReader
from pipelines.errors import PlanMismatchError
from pipelines.merging import CorpusPart, merge
from pipelines.storage import Store
from pipelines.validate import validate
from schemas.ids import video_id
from schemas.info import CorpusInfo
from schemas.layout import CONFIG_PATH, MANIFEST_PATH
from schemas.statistics import PREDICTED_ELBO_UNIT


@pytest.fixture(autouse=True)
def _plain() -> Iterator[None]:
    with without_charts():
        yield


def rows(store: Store) -> list[dict[str, Any]]:
    reader = CorpusReader.open(store)
    found = [row for item in reader.videos() for row in reader.rows(item)]
    return sorted(found, key=lambda row: row["clip_id"])


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[CorpusPart]:
    """Three corpora of other levels of information, with a video that the second set aside."""
    root = tmp_path_factory.mktemp("parts")
    with without_charts():
        return [
            made(root / "0", {"a.mp4": video(1, 3), "b.mp4": video(2, 1)}, format="both"),
            made(root / "1", {"c.mp4": video(3, 2, 0.3), "d.mp4": BROKEN}, format="both"),
            made(root / "2", {"d.mp4": video(4, 4, 0.02), "e.mp4": BROKEN}, format="both"),
        ]


def test_a_merged_corpus_is_sound_and_holds_the_rows_of_its_parts(parts, tmp_path: Path):
    output = Store(str(tmp_path / "out"))
    info = merge(parts, output)
    assert validate(output).faults == ()
    expected = sorted(
        (row for part in parts for row in rows(part.store)), key=lambda row: row["clip_id"]
    )
    found = rows(output)
    assert [row["clip_id"] for row in found] == [row["clip_id"] for row in expected]
    for one, other in zip(found, expected, strict=True):
        assert (one["tokens"] == other["tokens"]).all()
    # d.mp4 was set aside once and came through elsewhere; e.mp4 stays out.
    assert (info.videos.listed, info.videos.committed, info.videos.quarantined) == (5, 4, 1)
    assert [row["video_id"] for row in CorpusPart.read(output).quarantine] == [video_id("e.mp4")]
    assert info.totals.rate == pytest.approx(0.5, abs=0.01)
    assert len({run.routing.scale for run in info.generations}) == 3


def test_the_first_part_may_be_the_output_itself(parts, tmp_path: Path):
    one, other = Store(str(tmp_path / "one")), Store(str(tmp_path / "other"))
    for path, data in bytes_of(parts[0].store).items():
        one.publish(path, data)
    merge([CorpusPart.read(one), *parts[1:]], one)
    merge(parts, other)
    assert bytes_of(one) == bytes_of(other)
    assert validate(one).faults == ()


@settings(max_examples=8)
@given(st.data())
def test_how_a_merge_is_bracketed_does_not_matter(parts, tmp_path_factory, data):
    root = tmp_path_factory.mktemp("merge")
    names = itertools.count()

    def merged(some: list[CorpusPart]) -> CorpusPart:
        if len(some) == 1:
            return some[0]
        cut = data.draw(st.integers(1, len(some) - 1))
        store = Store(str(root / str(next(names))))
        merge([merged(some[:cut]), merged(some[cut:])], store)
        return CorpusPart.read(store)

    order = data.draw(st.permutations(parts))
    flat = Store(str(root / "flat"))
    merge(order, flat)
    found = merged(list(order))
    assert bytes_of(found.store) == bytes_of(flat)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rate": 0.25}, "rate: 0.5 and 0.25"),
        ({"min_rate": 0.125}, "min_rate: 0.0625 and 0.125"),
        ({"exponent": 0.5}, "exponent: 1.0 and 0.5"),
        ({"format": "parquet"}, "formats: "),
        ({"split": "val"}, "split: train and val"),
        ({"licence": "CC0-1.0"}, "licence: unknown and CC0-1.0"),
    ],
)
def test_what_differs_is_refused_by_name(parts, tmp_path: Path, changes, named):
    other = made(tmp_path, {"z.mp4": video(9, 1)}, **{"format": "both", **changes})
    output = Store(str(tmp_path / "merged"))
    with pytest.raises(PlanMismatchError, match="cannot be one corpus") as caught:
        merge([parts[0], other], output)
    assert named in str(caught.value)
    assert list(output.list()) == []


@pytest.mark.parametrize(
    "field", ["tokenizer", "window", "space", "elbo_unit", "source_root", "extra_columns"]
)
def test_so_is_another_tokenizer_window_or_root(parts, tmp_path: Path, field: str):
    info = parts[1].info
    others = {
        "tokenizer": info.tokenizer.model_copy(update={"fingerprint": "0" * 64}),
        "window": {**info.window, "frames": 17},
        "space": {**info.space, "size": 128},
        "elbo_unit": PREDICTED_ELBO_UNIT,
        "source_root": "/elsewhere",
        "extra_columns": {"action": "int64"},
    }
    changed = CorpusPart(
        store=parts[1].store,
        info=info.model_copy(update={field: others[field]}),
        files=parts[1].files,
        statistics=parts[1].statistics,
        quarantine=parts[1].quarantine,
    )
    with pytest.raises(PlanMismatchError, match=f"\n  {field}: "):
        merge([parts[0], changed], Store(str(tmp_path)))


def test_a_video_that_both_have_is_refused(parts, tmp_path: Path):
    other = made(tmp_path, {"b.mp4": video(7, 2)}, format="both")
    with pytest.raises(PlanMismatchError, match="has 1 videos that a corpus before it has"):
        merge([parts[0], other], Store(str(tmp_path / "out")))


def test_killed_before_any_write_there_is_no_corpus_and_the_next_merge_makes_it(parts, tmp_path):
    whole = Store(str(tmp_path / "whole"))
    merge(parts, whole)
    expected = bytes_of(whole)
    for writes in range(len(expected)):
        url = str(tmp_path / str(writes))
        with pytest.raises(KilledError):
            merge(parts, DyingStore(url, writes))
        assert not Store(url).exists(MANIFEST_PATH)
        merge(parts, Store(url))
        assert bytes_of(Store(url)) == expected


def test_generations_tell_their_files(parts, tmp_path: Path):
    output = Store(str(tmp_path / "out"))
    info = CorpusInfo.from_bytes(merge(parts, output).to_bytes())
    shards = [file.shard for file in CorpusPart.read(output).files]
    firsts = [run.first_shard for run in info.generations]
    assert firsts == sorted(set(firsts))
    assert firsts[0] == 0
    assert firsts[-1] <= max(shards)


def test_a_merge_that_was_refused_leaves_its_output_free(parts, tmp_path: Path):
    other = made(tmp_path / "other", {"z.mp4": video(9, 1)}, format="parquet")
    for part in (parts[0], parts[1]):
        part.store.replace(CONFIG_PATH, b'{"config": {}, "tokens_key": ""}')
    output = Store(str(tmp_path / "merged"))

    def command(*corpora: CorpusPart) -> Result:
        urls = [part.store.url for part in corpora]
        return CliRunner().invoke(main, ["merge", *urls, output.url])

    refused = command(parts[0], other)
    assert refused.exit_code == 4
    assert "formats: " in refused.stderr
    assert list(output.list()) == []
    taken = command(parts[0], parts[1])
    assert taken.exit_code == 0, taken.output
    assert json.loads(taken.stdout)["videos_committed"] == 3
    assert validate(output).faults == ()
    # Of others it is no place any more.
    assert "holds (part of) another corpus" in command(parts[0], parts[2]).stderr
