"""Pass two in its two forms, at another rate, and over codes of programs: one Ray for all of it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import ray
from click.testing import CliRunner
from runs import PATIENCE_S, start
from videos import write_video

from infotok_core.checkpoint import save_directory
from infotok_core.config import TokenizerConfig, TransformerConfig
from infotok_core.export import export_programs
from infotok_core.network import build_network
from infotok_core.tokenizer import Tokenizer
from jobs.cli import main
from jobs.config import load_config
from pipelines.errors import PipelineError, PlanMismatchError
from pipelines.observe import RunControl
from pipelines.receipt_store import ReceiptStore
from pipelines.run import Corpus
from pipelines.storage import Store
from pipelines.validate import validate

pytestmark = pytest.mark.ray

CLIPS = Path(__file__).parents[2] / "examples" / "clips"
SMALL = ["space.size=32", "window.frames=17", "output.format=both"]
SMALL += ["tokenizer.cpu_threads=1", "runtime.actors=1"]
LEVELS = (8, 5, 5)
"""200 codes, so that nothing can rest on the published 64,000."""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    shutil.copyfile(CLIPS / "car.mp4", folder / "car.mp4")
    shutil.copyfile(CLIPS / "flower.mp4", folder / "flower.mp4")
    (folder / "broken.mp4").write_bytes(b"no video at all")
    return folder


@pytest.fixture(scope="module")
def small(checkpoint: Path) -> list[str]:
    return [*SMALL, f"tokenizer.checkpoint={checkpoint}"]


def run(control: RunControl, videos: Path, output: Path, settings: list[str]) -> dict[str, object]:
    corpus = Corpus.open(load_config(None, settings), output=str(output))
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


def identities(output: Path) -> dict[str, tuple[int, int, int]]:
    # The inode, too: a file that was written again with the same bytes is another one.
    paths = [path for name in ("data", "wds", "_work") for path in (output / name).rglob("*")]
    return {
        str(path): (path.stat().st_ino, path.stat().st_mtime_ns, path.stat().st_size)
        for path in paths
        if path.is_file() and ".nv-meta" not in path.parts
    }


@pytest.fixture(scope="module")
def first(
    control: RunControl,
    videos: Path,
    small: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[str, object]]:
    output = tmp_path_factory.mktemp("corpus")
    return output, run(control, videos, output, small)


@pytest.fixture(scope="module")
def corpus(first: tuple[Path, dict[str, object]]) -> Path:
    return first[0]


@pytest.fixture(scope="module", autouse=True)
def files_at_first(corpus: Path) -> dict[str, str]:
    """Digests of its data files, before any test."""
    return data_files(corpus)


def test_recomputing_gives_the_rows_of_reusing_and_keeps_no_unit(
    control: RunControl, videos: Path, corpus: Path, small: list[str], tmp_path: Path
):
    summary = run(control, videos, tmp_path, [*small, "runtime.second_pass=recompute"])
    assert data_files(tmp_path) == data_files(corpus)
    assert len(data_files(corpus)) == 2
    assert not list((tmp_path / "_work" / "units").rglob("*.parquet"))
    assert summary["videos_quarantined"] == 1


def test_two_commands_write_what_one_writes(
    control: RunControl, videos: Path, corpus: Path, small: list[str], tmp_path: Path
):
    output, settings = tmp_path / "corpus", [word for one in small for word in ("--set", one)]
    address = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    for name, given in (("analyse", [str(videos)]), ("tokenise", [])):
        command = [sys.executable, "-m", "jobs", name, *given, str(output), *settings]
        with start(command, tmp_path / f"{name}.log", address) as session:
            assert session.wait(PATIENCE_S) == 0, session.log.read_text(errors="replace")[-3000:]
    assert data_files(output) == data_files(corpus)


@dataclass(frozen=True, kw_only=True)
class Retargeted:
    """A second corpus from the analyses of the first, and how the command ended."""

    output: Path
    status: int
    summary: dict[str, Any]
    said: str


@pytest.fixture(scope="module")
def retargeted(
    control: RunControl,
    first: tuple[Path, dict[str, object]],
    videos: Path,
    small: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Retargeted:
    folder = tmp_path_factory.mktemp("retarget")
    output = folder / "corpus"
    command = [sys.executable, "-m", "jobs", "tokenise", str(output), "--rate", "0.25"]
    command += ["--work", str(first[0] / "_work")]
    # One of the three videos is broken: that is more than this run is to stand.
    for setting in (*small, "runtime.max_failure_rate=0.3"):
        command += ["--set", setting]
    address = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    hidden = videos.rename(videos.with_name("gone"))
    try:
        with start(command, folder / "run.log", address) as session:
            status = session.wait(PATIENCE_S)
            said = session.log.read_text(errors="replace")
            printed = session.output.read_text()
    finally:
        hidden.rename(videos)
    assert printed, said[-3000:]
    return Retargeted(output=output, status=status, summary=json.loads(printed), said=said)


def test_a_run_of_which_nothing_came_says_so(control: RunControl, small: list[str], tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").write_bytes(b"no video")
    output = tmp_path / "corpus"
    command = [sys.executable, "-m", "jobs", "run", str(tmp_path / "in"), str(output)]
    command += [word for setting in small for word in ("--set", setting)]
    address = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    with start(command, tmp_path / "run.log", address) as session:
        assert session.wait(PATIENCE_S) == 0, session.log.read_text(errors="replace")[-3000:]
        said = session.log.read_text(errors="replace").splitlines()
    assert said[-1] == (
        f"none of 1 videos is in the corpus; `infotok inspect {output}/quarantine/"
        "quarantine.parquet` says why"
    )


def test_another_rate_is_met_without_a_video(
    first: tuple[Path, dict[str, object]], retargeted: Retargeted
):
    summary = retargeted.summary
    assert summary["rate_asked"] == 0.25
    assert summary["rate_realised"] == pytest.approx(0.25, rel=1e-3)
    assert summary["windows"] == first[1]["windows"]
    columns = ["num_tokens", "grid_t", "grid_h", "grid_w"]
    rows = pq.read_table(retargeted.output / "data", columns=columns).to_pylist()
    cells = sum(row["grid_t"] * row["grid_h"] * row["grid_w"] for row in rows)
    assert sum(row["num_tokens"] for row in rows) == pytest.approx(0.25 * cells, rel=1e-3)
    # The videos were not there; no line tells of a pass over them.
    assert "analyse" not in retargeted.said
    assert re.search(r"tokenise (\d+)/\1 shards", retargeted.said)


def test_both_corpora_are_sound_and_the_first_is_left_as_it_was(
    corpus: Path, files_at_first: dict[str, str], retargeted: Retargeted
):
    assert validate(Store(str(retargeted.output))).faults == ()
    assert validate(Store(str(corpus))).faults == ()
    assert data_files(corpus) == files_at_first


def test_too_many_quarantined_videos_fail_the_run_after_everything_is_written(
    retargeted: Retargeted,
):
    assert retargeted.status == 1
    assert "error: 1 of 3 videos are quarantined, more than" in retargeted.said
    assert (retargeted.output / "meta" / "manifest.parquet").exists()


def test_another_rate_into_the_same_output_is_refused(
    control: RunControl, corpus: Path, small: list[str]
):
    config = load_config(None, [*small, "routing.rate=0.25"])
    with pytest.raises(PlanMismatchError, match="another output"):
        Corpus.open(config, output=str(corpus)).tokenise(control)


def test_a_finished_corpus_run_again_stays_as_it_is(
    control: RunControl, videos: Path, small: list[str], first: tuple[Path, dict[str, object]]
):
    corpus, summary = first
    before = identities(corpus)
    assert len(before) > 6
    assert run(control, videos, corpus, small) == summary
    assert identities(corpus) == before


def test_a_damaged_unit_is_an_error_and_not_a_shard(
    control: RunControl, corpus: Path, small: list[str], tmp_path: Path
):
    work = tmp_path / "work"
    shutil.copytree(corpus / "_work", work)
    unit = next((work / "units").rglob("*.parquet"))
    data = bytearray(unit.read_bytes())
    data[len(data) // 2] ^= 1
    unit.write_bytes(bytes(data))
    config = load_config(None, [*small, "routing.rate=0.3"])
    other = Corpus.open(config, output=str(tmp_path / "out"), work=str(work))
    with pytest.raises(PipelineError, match=r"damaged: sha256"):
        other.tokenise(control)
    assert not (tmp_path / "out" / "meta" / "manifest.parquet").exists()


def test_only_what_failed_is_run_again(
    control: RunControl, videos: Path, corpus: Path, small: list[str], tmp_path: Path
):
    output = tmp_path / "out"
    shutil.copytree(corpus, output)
    again = Corpus.open(load_config(None, small), output=str(output))
    plan = again.plan(str(videos))
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


def test_an_exported_tokenizer_makes_a_corpus_that_validates_and_decodes(
    control: RunControl, tmp_path: Path
):
    config = TokenizerConfig(
        channels=4, channels_mult=(1,), num_res_blocks=1, patch_size=4, z_channels=16,
        levels=LEVELS, spatial_compression=4, temporal_compression=4,
        transformer=TransformerConfig(
            hidden=16, mlp_hidden=16, encoder_layers=1, decoder_layers=1, heads=2, init_std=0.3
        ),
    )  # fmt: skip
    save_directory(build_network(config, seed=1).eval(), tmp_path / "weights", card="")
    export_programs(Tokenizer.load(tmp_path / "weights"), tmp_path / "programs")
    (tmp_path / "in").mkdir()
    for name, frames in (("a", 22), ("b", 9)):
        write_video(tmp_path / "in" / f"{name}.mp4", frames)

    output = tmp_path / "out"
    programs = ["window.frames=9", f"tokenizer.checkpoint={tmp_path / 'programs'}"]
    summary = run(control, tmp_path / "in", output, [*SMALL, *programs])
    assert (summary["videos_committed"], summary["windows"]) == (2, 4)
    assert summary["rate_realised"] == pytest.approx(0.5, abs=0.01)

    info = json.loads((output / "meta" / "info.json").read_text())
    assert info["tokenizer"]["num_codes"] == 200
    assert info["tokenizer"]["spatial_compression"] == 4
    rows = pq.read_table(output / "data").to_pylist()
    assert max(max(row["tokens"]) for row in rows) < 200
    assert {(row["grid_h"], row["grid_w"]) for row in rows} == {(8, 8)}
    assert "log2(200)" in (output / "README.md").read_text()

    assert _infotok("validate", output).exit_code == 0
    report = _infotok(
        "reconstruct", output, "--against", "--to", tmp_path / "videos", "--json", "-",
        "--checkpoint", tmp_path / "programs",
    )  # fmt: skip
    assert report.exit_code == 0, report.output
    assert json.loads(report.stdout)["mean"]["num_frames"] == 31
    assert sorted(path.suffix for path in (tmp_path / "videos").iterdir()) == [
        *[".mp4"] * 2,
        *[".png"] * 2,
    ]
    # The network that the programs came from has another fingerprint: they may round otherwise.
    other = _infotok("reconstruct", output, "--against", "--checkpoint", tmp_path / "weights")
    assert "name the right one with --checkpoint" in other.output


def _infotok(*arguments: str | Path):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])
