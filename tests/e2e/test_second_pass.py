"""Pass two in its two forms, and again at another rate: one Ray for all of it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.config import load_config
from jobs.engine import engine
from pipelines.errors import PipelineError, PlanMismatchError
from pipelines.observe import RunControl
from pipelines.receipt_store import ReceiptStore
from pipelines.run import Corpus
from pipelines.storage import Store
from pipelines.validate import validate

pytestmark = pytest.mark.ray

CLIPS = Path(__file__).parents[2] / "examples" / "clips"
SMALL = ["space.size=32", "window.frames=17", "output.format=both"]


@pytest.fixture(scope="module")
def control() -> Iterator[RunControl]:
    with engine() as control:
        yield control


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    shutil.copyfile(CLIPS / "car.mp4", folder / "car.mp4")
    shutil.copyfile(CLIPS / "flower.mp4", folder / "flower.mp4")
    (folder / "broken.mp4").write_bytes(b"no video at all")
    return folder


def run(control: RunControl, videos: Path, output: Path, *settings: str) -> dict[str, object]:
    corpus = Corpus.open(load_config(None, [*SMALL, *settings]), output=str(output))
    corpus.check_stores()
    corpus.plan(str(videos))
    corpus.analyse(control)
    return corpus.tokenise(control)


def data_paths(output: Path) -> list[str]:
    files = [*output.glob("data/*"), *output.glob("wds/*.tar")]
    return [str(file.relative_to(output)) for file in files]


def data_files(output: Path) -> dict[str, str]:
    paths = data_paths(output)
    return {path: hashlib.sha256((output / path).read_bytes()).hexdigest() for path in paths}


def modification_times(output: Path) -> dict[str, int]:
    return {name: (output / name).stat().st_mtime_ns for name in sorted(data_paths(output))}


@pytest.fixture(scope="module")
def corpus(control: RunControl, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("corpus")
    run(control, videos, output)
    return output


def test_recomputing_gives_the_rows_of_reusing_and_keeps_no_unit(
    control: RunControl, videos: Path, corpus: Path, tmp_path: Path
):
    summary = run(control, videos, tmp_path, "runtime.second_pass=recompute")
    assert data_files(tmp_path) == data_files(corpus)
    assert len(data_files(corpus)) == 2
    assert not list((tmp_path / "_work" / "units").rglob("*.parquet"))
    assert summary["videos_quarantined"] == 1


def test_another_rate_needs_no_video(
    control: RunControl, videos: Path, corpus: Path, tmp_path: Path
):
    before = data_files(corpus)
    config = load_config(None, [*SMALL, "routing.rate=0.25"])
    hidden = videos.rename(videos.with_name("gone"))
    try:
        other = Corpus.open(config, output=str(tmp_path), work=str(corpus / "_work"))
        summary = other.tokenise(control)
    finally:
        hidden.rename(videos)
    assert summary["rate_realised"] == pytest.approx(0.25, rel=1e-3)
    assert data_files(corpus) == before
    assert validate(Store(str(corpus))).ok
    assert validate(Store(str(tmp_path))).ok


def test_another_rate_into_the_same_output_is_refused(control: RunControl, corpus: Path):
    config = load_config(None, [*SMALL, "routing.rate=0.25"])
    with pytest.raises(PlanMismatchError, match="another output"):
        Corpus.open(config, output=str(corpus)).tokenise(control)


def test_a_finished_corpus_run_again_stays_as_it_is(
    control: RunControl, videos: Path, corpus: Path
):
    before = modification_times(corpus)
    run(control, videos, corpus)
    assert modification_times(corpus) == before


def test_a_damaged_unit_is_an_error_and_not_a_shard(
    control: RunControl, corpus: Path, tmp_path: Path
):
    work = tmp_path / "work"
    shutil.copytree(corpus / "_work", work)
    unit = next((work / "units").rglob("*.parquet"))
    data = bytearray(unit.read_bytes())
    data[len(data) // 2] ^= 1
    unit.write_bytes(bytes(data))
    config = load_config(None, [*SMALL, "routing.rate=0.3"])
    other = Corpus.open(config, output=str(tmp_path / "out"), work=str(work))
    with pytest.raises(PipelineError, match=r"damaged: sha256"):
        other.tokenise(control)
    assert not (tmp_path / "out" / "meta" / "manifest.parquet").exists()


def test_only_what_failed_is_run_again(
    control: RunControl, videos: Path, corpus: Path, tmp_path: Path
):
    sources = tmp_path / "videos"
    shutil.copytree(videos, sources, copy_function=shutil.copy2)
    output = tmp_path / "out"
    run(control, sources, output)
    again = Corpus.open(load_config(None, SMALL), output=str(output))
    plan = again.plan(str(sources))
    before = list(ReceiptStore(plan, again.work).read(plan.rows()))
    assert again.forget_quarantined(["TRUNCATED"]) == 0
    assert again.forget_quarantined() == 1
    left = ReceiptStore(plan, again.work).finished()
    assert [r.uri for r, done in zip(before, left, strict=True) if not done] == ["broken.mp4"]
    again.analyse(control)
    assert list(ReceiptStore(plan, again.work).read(plan.rows())) == before
    assert [p.name for p in (output / "_work/receipts/000000").iterdir()] == ["001.parquet"]
    rows = pq.read_table(output / "_work" / "quarantine.parquet").to_pylist()
    assert [(row["uri"], row["reason"]) for row in rows] == [("broken.mp4", "NOT_A_VIDEO")]


def test_the_configuration_in_effect_is_stored_with_the_output(corpus: Path):
    stored = json.loads((corpus / "meta" / "config.json").read_text())
    assert stored["config"]["space"]["size"] == 32
    assert stored["config"]["routing"]["rate"] == 0.5
