"""One threshold for all tokens on a real Ray: resumed, retargeted, recomputed, refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from videos import write_video

from jobs.config import load_config
from pipelines.errors import PlanMismatchError
from pipelines.observe import RunControl
from pipelines.run import Corpus
from pipelines.storage import Store
from pipelines.validate import validate
from schemas.info import CorpusInfo
from schemas.token_rules import TokenRule

pytestmark = pytest.mark.ray

SETTINGS = [
    "space.size=32",
    "window.frames=9",
    "tokenizer.cpu_threads=1",
    "runtime.actors=1",
    "routing.router=token_threshold",
]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    # Two units, the second with a short tail, and a video of one window.
    write_video(folder / "a.mp4", 150)
    write_video(folder / "b.mp4", 9)
    (folder / "broken.mp4").write_bytes(b"no video at all")
    return folder


@pytest.fixture(scope="module")
def settings(checkpoint: Path) -> list[str]:
    return [*SETTINGS, f"tokenizer.checkpoint={checkpoint}"]


def opened(settings: list[str], output: Path, work: Path | None = None) -> Corpus:
    return Corpus.open(
        load_config(None, settings), output=str(output), work=str(work) if work else None
    )


def run(control: RunControl, videos: Path, output: Path, settings: list[str]) -> dict[str, Any]:
    corpus = opened(settings, output)
    corpus.plan(str(videos))
    corpus.analyse(control)
    return corpus.tokenise(control)


def rows(output: Path) -> list[dict[str, Any]]:
    columns = ["clip_id", "tokens", "mask", "num_tokens", "grid_t", "grid_h", "grid_w"]
    return pq.read_table(output / "data", columns=columns).to_pylist()


@pytest.fixture(scope="module")
def corpus(
    control: RunControl,
    videos: Path,
    settings: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    output = tmp_path_factory.mktemp("corpus")
    run(control, videos, output, settings)
    return output


def test_the_rate_is_met_to_the_token_and_the_corpus_is_sound(corpus: Path):
    found = rows(corpus)
    cells = sum(row["grid_t"] * row["grid_h"] * row["grid_w"] for row in found)
    assert abs(sum(row["num_tokens"] for row in found) - 0.5 * cells) <= 0.5
    assert len({row["num_tokens"] for row in found}) > 1
    assert validate(Store(str(corpus))).faults == ()
    info = CorpusInfo.from_bytes((corpus / "meta/info.json").read_bytes())
    assert isinstance(info.routing, TokenRule)
    assert info.videos.quarantined == 1


def test_stored_units_are_counted_again_without_being_encoded(
    control: RunControl, videos: Path, corpus: Path, settings: list[str], tmp_path: Path
):
    # What a driver leaves that dies before its first receipt.
    for name in ("plan.json", "plan.parquet", "analysis.json"):
        (tmp_path / "_work").mkdir(exist_ok=True)
        shutil.copyfile(corpus / "_work" / name, tmp_path / "_work" / name)
    shutil.copytree(corpus / "_work/units", tmp_path / "_work/units")
    units = {path: path.stat().st_mtime_ns for path in (tmp_path / "_work/units").rglob("*.*")}
    run(control, videos, tmp_path, settings)
    assert {path: path.stat().st_mtime_ns for path in units} == units
    for name in ("_work/statistics.json", "data/train-000000-00.parquet"):
        assert (tmp_path / name).read_bytes() == (corpus / name).read_bytes()


def test_units_made_again_give_the_same_rows(
    control: RunControl, videos: Path, corpus: Path, settings: list[str], tmp_path: Path
):
    run(control, videos, tmp_path, [*settings, "runtime.second_pass=recompute"])
    assert not list((tmp_path / "_work/units").rglob("*.parquet"))
    assert rows(tmp_path) == rows(corpus)


def test_another_rate_or_router_needs_no_video(
    control: RunControl, corpus: Path, settings: list[str], tmp_path: Path
):
    for name, change in (("1", "routing.rate=0.25"), ("2", "routing.router=global_elbo")):
        other = opened([*settings, change], tmp_path / name, corpus / "_work")
        summary = other.tokenise(control)
        assert summary["rate_realised"] == pytest.approx(summary["rate_asked"], rel=2e-3)
        assert validate(Store(str(tmp_path / name))).faults == ()


def test_a_work_folder_is_not_resumed_for_another_router(
    control: RunControl, videos: Path, corpus: Path, settings: list[str], tmp_path: Path
):
    work = tmp_path / "work"
    shutil.copytree(corpus / "_work", work)
    elbo = [*settings, "routing.router=global_elbo"]
    other = opened(elbo, tmp_path / "out", work)
    other.plan(str(videos))
    with pytest.raises(PlanMismatchError, match=r"token_threshold_min_rate: was 0\.0625, is None"):
        other.analyse(control)
