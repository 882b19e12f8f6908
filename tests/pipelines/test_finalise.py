"""The manifest is written when, and only when, everything adds up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from work_folders import BROKEN, Analysed, analysed, window

from infotok_core.config import mini
from infotok_core.shape import shape_of
from pipelines.errors import AccountingError, IncompleteError, PipelineError
from pipelines.finalise import finalise
from pipelines.garbage import collect_garbage
from pipelines.shards import ShardSpec, tokenise_shard
from pipelines.statistics import SUMMARY, load_statistics
from pipelines.validate import validate
from schemas.ids import video_id
from schemas.info import CorpusInfo
from schemas.manifest import ShardCommit, TotalsBuilder, decode_manifest
from schemas.summary import AnalysisSummary

MANIFEST = "meta/manifest.parquet"
VIDEOS = {
    "a.mp4": [window(0.1 * (index + 1), index=index) for index in range(3)],
    "b.mp4": BROKEN,
    "c.mp4": [window(0.2)],
}


@pytest.fixture
def done(tmp_path: Path) -> Analysed:
    return analysed(tmp_path / "work", VIDEOS, shard_source_bytes=1000, format="both")


def tokenised(done: Analysed, output: Path, **changes: Any) -> ShardSpec:
    spec = done.spec(output, **changes)
    for shard in range(spec.plan.head.shards):
        tokenise_shard(spec, shard)
    return spec


def finished(spec: ShardSpec) -> dict[str, Any]:
    return finalise(spec, load_statistics(spec.plan, spec.work), shape_of(mini()))


def test_the_summary_closes_the_accounts(done: Analysed, tmp_path: Path):
    summary = finished(tokenised(done, tmp_path / "out"))
    assert summary["videos_listed"] == 3
    assert summary["videos_committed"] + summary["videos_quarantined"] == 3
    assert summary["quarantine_reasons"] == {"TRUNCATED": 1}
    assert (summary["windows"], summary["tokens_at_full_rate"]) == (4, 4 * 192)
    assert summary["rate_realised"] == pytest.approx(summary["tokens"] / (4 * 192))
    assert summary["rate_asked"] == 0.5


def test_the_manifest_names_every_data_file_and_nothing_else(done: Analysed, tmp_path: Path):
    spec = tokenised(done, tmp_path / "out")
    finished(spec)
    files = decode_manifest(spec.output.read(MANIFEST))
    data = [path for path, _ in spec.output.list() if path.endswith((".parquet", ".tar"))]
    named = {file.path for file in files}
    assert named == {path for path in data if path.startswith(("data/", "wds/"))}
    assert len(named) == 4


def test_what_it_writes_is_a_valid_corpus(tmp_path: Path):
    # The tokenizer of the hand-made units compresses 4 x 8 x 8: nine frames of 64 x 64.
    done = analysed(tmp_path / "work", VIDEOS, format="both")
    spec = tokenised(done, tmp_path / "out")
    finished(spec)
    report = validate(spec.output)
    assert report.faults == ()


def test_the_description_tells_policies_and_the_extra_columns(done: Analysed, tmp_path: Path):
    spec = tokenised(done, tmp_path / "out", licence="CC-BY-4.0")
    finished(spec)
    info = CorpusInfo.from_bytes(spec.output.read("meta/info.json"))
    assert (info.licence, info.source_root, info.formats) == (
        "CC-BY-4.0",
        "/source",
        ("parquet", "webdataset"),
    )
    assert info.routing == spec.rule
    assert info.plan_id == spec.plan.head.plan_id
    assert spec.output.exists("README.md")
    assert spec.output.exists("report.html")


@pytest.mark.parametrize("name", ["parquet", "webdataset"])
def test_one_format_writes_no_file_of_the_other(done: Analysed, tmp_path: Path, name: str):
    spec = tokenised(done, tmp_path / "out", format=name)
    finished(spec)
    folders = {path.split("/")[0] for path, _ in spec.output.list()}
    assert ("data" in folders, "wds" in folders) == (name == "parquet", name == "webdataset")


def test_a_shard_without_commit_gives_no_corpus(done: Analysed, tmp_path: Path):
    spec = tokenised(done, tmp_path / "out")
    spec.work.store.delete(spec.commit_path(2))
    with pytest.raises(IncompleteError, match="shard 2 is not committed; run `infotok tokenise`"):
        finished(spec)
    assert not spec.output.exists(MANIFEST)


def test_a_damaged_commit_is_named(done: Analysed, tmp_path: Path):
    spec = tokenised(done, tmp_path / "out")
    spec.work.store.replace(spec.commit_path(0), b"{")
    with pytest.raises(PipelineError, match=r"000000\.json is damaged"):
        finished(spec)
    assert not spec.output.exists(MANIFEST)


def test_a_commit_that_lacks_a_window_gives_no_corpus(done: Analysed, tmp_path: Path):
    spec = tokenised(done, tmp_path / "out")
    commit = ShardCommit.from_bytes(spec.work.store.read(spec.commit_path(2)))
    nothing = TotalsBuilder().freeze()
    empty = commit.model_copy(update={"videos": 0, "files": (), "totals": nothing})
    spec.work.store.replace(spec.commit_path(2), empty.to_bytes())
    with pytest.raises(AccountingError) as caught:
        finished(spec)
    assert "videos: 2 analysed, 1 committed" in str(caught.value)
    assert "windows: 4 analysed, 3 committed" in str(caught.value)
    assert AccountingError.exit_code == 3
    assert not spec.output.exists(MANIFEST)
    assert not spec.output.exists("meta/info.json")


def test_a_summary_that_does_not_fit_gives_no_corpus(done: Analysed, tmp_path: Path):
    spec = tokenised(done, tmp_path / "out")
    summary = AnalysisSummary.from_bytes(spec.work.store.read(SUMMARY))
    wrong = summary.model_copy(update={"windows": 5})
    spec.work.store.replace(SUMMARY, wrong.to_bytes())
    with pytest.raises(AccountingError, match="windows: 5 analysed, 4 committed"):
        finished(spec)


def test_finalising_again_changes_no_byte(done: Analysed, tmp_path: Path):
    spec = tokenised(done, tmp_path / "out")
    first = finished(spec)
    before = {path: spec.output.read(path) for path, _ in spec.output.list()}
    assert finished(spec) == first
    assert {path: spec.output.read(path) for path, _ in spec.output.list()} == before


def test_garbage_is_what_no_receipt_and_no_commit_speaks_of(done: Analysed, tmp_path: Path):
    spec = tokenised(done, tmp_path / "out")
    store = spec.work.store
    kept = {path for path, _ in store.list("units")}
    store.publish(f"units/000001/{'1' * 32}-u00000-abcdefabcdef.parquet", b"of no block")
    store.publish("units/00000000000000000000000000000000-u00000-abcdefabcdef.parquet", b"orphan")
    store.publish(
        spec.work.unit_path(video_id("b.mp4"), "v1", 0, block=0), b"of a quarantined video"
    )
    spec.work.claim("video", run_id="run", limit=3)
    for folder in (Path(store.url) / "units/000000", Path(spec.output.url) / "data"):
        (folder / ".tmp-0123456789abcdef").write_bytes(b"half")
    collect_garbage(spec.plan, store, spec.output)
    assert {path for path, _ in store.list("units")} == kept
    assert list(store.list("attempts")) == []
    assert not list(tmp_path.rglob(".tmp-*"))


def test_a_corpus_of_broken_videos_is_an_empty_corpus(tmp_path: Path):
    done = analysed(tmp_path / "work", {"a.mp4": BROKEN, "b.mp4": BROKEN}, format="both")
    spec = tokenised(done, tmp_path / "out")
    summary = finished(spec)
    assert (summary["windows"], summary["files"], summary["videos_quarantined"]) == (0, 0, 2)
    assert decode_manifest(spec.output.read(MANIFEST)) == []
