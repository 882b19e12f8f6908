"""``infotok estimate`` on real clips, one of them broken."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from evaluations import write_small_checkpoint
from programs import write_programs
from torch import Tensor
from units import CountingTokenizer

from infotok_core.tokenizer import Analysis
from jobs.cli import main
from pipelines.config import RunConfig
from pipelines.estimate import Estimate
from pipelines.estimate import estimate as estimate_corpus
from pipelines.plan import ensure_plan
from pipelines.plan_draft import draft_plan
from pipelines.sources import open_source
from pipelines.statistics import sample_videos
from pipelines.storage import Store
from pipelines.tokenizer_choice import chosen_tokenizer

CLIPS = Path(__file__).parents[2] / "examples/clips"
BYTES = {"work_bytes", "parquet_bytes", "webdataset_bytes"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips of 192 frames or so, and the first kilobytes of one of them."""
    root = tmp_path_factory.mktemp("estimate")
    shutil.copytree(CLIPS, root / "videos")
    data = (CLIPS / "car.mp4").read_bytes()
    (root / "videos/broken.mp4").write_bytes(data[: len(data) // 3])
    write_small_checkpoint(root / "checkpoint")
    return root


def estimate(folder: Path, *options: object, size: int = 32) -> Result:
    settings = (f"space.size={size}", "window.frames=17", "tokenizer.cpu_threads=1")
    arguments = ["estimate", folder / "videos", "--checkpoint", folder / "checkpoint", *options]
    arguments += [part for setting in settings for part in ("--set", setting)]
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def everything(folder: Path) -> dict[str, Any]:
    result = estimate(folder, "--sample", 100, "--windows", 3, "--rate", 0.25, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_one_threshold_for_all_tokens_can_be_estimated(folder: Path):
    choice = ("--set", "routing.router=token_threshold")
    result = estimate(folder, "--sample", 100, "--windows", 3, "--rate", 0.25, "--json", *choice)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["rate"] == pytest.approx(0.25, rel=0.05)


def test_a_sample_of_everything_counts_what_a_run_would_find(everything: dict[str, Any]):
    assert (everything["videos"], everything["sampled"]) == (5, 5)
    totals = everything["totals"]
    assert totals["windows"]["value"] == pytest.approx(everything["sampled_windows"])
    # 17 frames of 32 x 32 pixels, 4 x 8 x 8 compression: 5 x 4 x 4; tails have fewer.
    windows = everything["sampled_windows"]
    assert 70 * windows < totals["tokens_at_full_rate"]["value"] <= 80 * windows
    assert everything["rate"] == pytest.approx(0.25, rel=0.05)
    for name in totals.keys() - BYTES:
        assert totals[name]["low"] == pytest.approx(totals[name]["value"])
        assert totals[name]["high"] == pytest.approx(totals[name]["value"])


def test_bytes_from_some_windows_of_every_video_are_an_estimate_and_a_good_one(folder: Path):
    options = ("--sample", 100, "--rate", 0.25, "--set", "output.format=both", "--json")
    found = [
        json.loads(estimate(folder, *options, "--windows", number, size=64).stdout)["totals"]
        for number in (1, 3, 64)
    ]
    for name in BYTES:
        one, some, all_of_them = (totals[name] for totals in found)
        # A file has its head and footer once, and windows of 320 tokens weigh little beside them.
        assert one["value"] == pytest.approx(all_of_them["value"], rel=0.3)
        assert some["value"] == pytest.approx(all_of_them["value"], rel=0.15)
        assert some["low"] <= some["value"] <= some["high"]
        assert all_of_them["low"] == pytest.approx(all_of_them["high"])
    work = found[1]["work_bytes"]
    assert work["low"] < work["high"]


def test_one_window_of_one_video_tells_the_head_of_a_file_from_its_rows(folder: Path):
    options = ("--sample", 1, "--rate", 0.25, "--json")
    one, three = (
        json.loads(estimate(folder, *options, "--windows", number, size=64).stdout)["totals"]
        for number in (1, 3)
    )
    assert one["parquet_bytes"]["value"] == pytest.approx(three["parquet_bytes"]["value"], rel=0.5)


def test_a_broken_file_is_part_of_what_is_to_be_expected(everything: dict[str, Any]):
    assert sum(everything["reasons"].values()) == 1
    assert everything["totals"]["quarantined_videos"]["value"] == pytest.approx(1)


def test_hours_follow_from_a_speed_that_is_given(folder: Path, everything: dict[str, Any]):
    result = estimate(folder, "--sample", 100, "--windows", 1, "--clips-per-s", 10, "--json")
    found = json.loads(result.stdout)
    windows = everything["sampled_windows"]
    assert found["windows_per_s"] == 10
    assert found["totals"]["tokenizer_hours"]["value"] == pytest.approx(windows / 36_000)


@pytest.mark.parametrize("speed", ["nan", "inf"])
def test_a_speed_that_is_no_finite_number_is_wrong_usage(folder: Path, speed: str):
    result = estimate(folder, "--clips-per-s", speed)
    assert result.exit_code == 2
    assert f"{speed} is not a finite number" in result.stderr


def test_some_of_the_videos_speak_for_all_within_an_interval_that_says_how_it_was_made(
    folder: Path,
):
    result = estimate(folder, "--sample", 3, "--windows", 2, "--set", "output.format=both")
    assert result.exit_code == 0, result.output
    assert "5 videos" in result.stdout
    assert "looked at 3 of them" in result.stdout
    for name in ("tokens kept", "core-hours of the tokenizer", "Parquet files", "WebDataset files"):
        [line] = [line for line in result.stdout.splitlines() if line.startswith(name)]
        assert "[" in line
    assert "bootstrap over the sampled videos" in result.stdout
    assert result.stderr.count("windows (") + result.stderr.count("TRUNCATED") == 3


@pytest.mark.parametrize("option", ["routing.budget=exact", "routing.router=static"])
def test_a_rate_that_is_met_is_as_certain_as_the_tokens_that_it_is_a_share_of(
    folder: Path, option: str
):
    result = estimate(folder, "--sample", 3, "--windows", 2, "--set", option, "--json")
    found = json.loads(result.stdout)
    assert found["rate"] == 0.5
    for end, full in found["totals"]["tokens_at_full_rate"].items():
        assert found["totals"]["tokens"][end] == pytest.approx(full / 2)


def test_a_rate_that_clipping_moves_is_what_the_sample_says(folder: Path):
    options = ("--rate", 0.9, "--set", "routing.budget=paper")
    found = json.loads(estimate(folder, "--sample", 3, "--windows", 2, *options, "--json").stdout)
    assert 0 < found["rate"] < 0.9


def test_the_sample_is_that_of_statistics_from_a_sample(folder: Path, tmp_path: Path):
    config = RunConfig()
    source = open_source(str(folder / "videos"), config.source, config.source_storage)
    plan = ensure_plan(source, config, tokenizer="t" * 64, work=Store(str(tmp_path)))
    sample = sample_videos(plan, 2 / 5)
    assert sample is not None
    expected = {row["uri"] for row in plan.rows() if row["video_id"] in sample}
    result = estimate(folder, "--sample", 2, "--windows", 1)
    said = {line.split(" ")[1].rstrip(":") for line in result.stderr.splitlines() if "/2 " in line}
    assert said == expected


def test_nothing_but_broken_files_gives_no_tokens(folder: Path, tmp_path: Path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/a.mp4").write_bytes(b"not a video")
    (tmp_path / "checkpoint").symlink_to(folder / "checkpoint")
    result = estimate(tmp_path, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["reasons"] == {"NOT_A_VIDEO": 1}
    assert found["totals"]["tokens"]["value"] == 0
    assert found["windows_per_s"] is None
    text = estimate(tmp_path)
    assert "would be set aside: 1 NOT_A_VIDEO" in text.stdout
    assert "a.mp4: NOT_A_VIDEO, no demuxer recognises the bytes" in text.stderr


def test_one_video_tells_nothing_of_others_but_all_of_itself(folder: Path, tmp_path: Path):
    assert "no interval from one video" in estimate(folder, "--sample", 1).stdout
    (tmp_path / "videos").mkdir()
    shutil.copy(CLIPS / "car.mp4", tmp_path / "videos")
    (tmp_path / "checkpoint").symlink_to(folder / "checkpoint")
    windows = json.loads(estimate(tmp_path, "--json").stdout)["totals"]["windows"]
    assert windows["low"] == windows["value"] == windows["high"] > 0


def test_a_second_pass_that_computes_again_takes_the_hours_twice_and_keeps_a_wave(
    folder: Path, everything: dict[str, Any]
):
    options = ("runtime.second_pass=recompute", "runtime.wave_videos=1")
    settings = [part for option in options for part in ("--set", option)]
    result = estimate(
        folder, "--sample", 100, "--windows", 3, "--clips-per-s", 10, "--json", *settings
    )
    totals = json.loads(result.stdout)["totals"]
    hours = everything["sampled_windows"] / 36_000
    assert totals["tokenizer_hours"]["value"] == pytest.approx(2 * hours)
    kept_bytes = everything["totals"]["work_bytes"]["value"]
    assert totals["work_bytes"]["value"] == pytest.approx(kept_bytes / 5)


def test_a_speed_that_was_given_is_not_said_of_the_device_that_is_here(folder: Path):
    text = estimate(folder, "--sample", 1, "--windows", 1, "--clips-per-s", 10).stdout
    assert "tokenizer: 10 windows/s, as given" in text
    assert "device-hours of the tokenizer" in text
    assert "core-hours of the tokenizer" not in text


class Diary(CountingTokenizer):
    """Notes when it is asked."""

    def __init__(self, events: list[str], *, room: int = 64) -> None:
        super().__init__(room)
        self.events = events

    def analyse(self, video_u8_BTHWC: Tensor, /) -> Analysis:
        self.events.append("analyse")
        return super().analyse(video_u8_BTHWC)


def estimated_by(folder: Path, *, room: int) -> tuple[list[str], Estimate]:
    config = RunConfig.model_validate(
        {
            "space": {"size": 32},
            "window": {"frames": 9},
            "tokenizer": {"checkpoint": str(folder / "checkpoint")},
        }
    )
    identity, events = chosen_tokenizer(config), list[str]()
    source = open_source(str(folder / "videos"), config.source, config.source_storage)
    with draft_plan(source, config, tokenizer=identity.fingerprint) as draft:
        found = estimate_corpus(
            draft, config, identity, lambda: Diary(events, room=room), sample=100,
            windows_per_video=100, windows_per_s=None, clock=time.perf_counter,
            cpu_clock=time.process_time,
            say=lambda line: events.append(line.split(" ")[0]),
        )  # fmt: skip
    return events, found


def test_frames_of_a_large_sample_are_not_all_held(folder: Path):
    events, _ = estimated_by(folder, room=64)
    assert events.index("analyse") < events.index("5/5")


def test_hours_on_a_cpu_are_called_those_of_its_cores(folder: Path):
    text = estimate(folder, "--sample", 2, "--windows", 1).stdout
    assert "core-hours of the tokenizer" in text
    assert "windows per CPU-second" in text


def test_more_windows_than_can_be_held_are_wrong_usage(folder: Path):
    result = estimate(folder, "--windows", 65)
    assert result.exit_code == 2
    assert "1<=x<=64" in result.stderr


def test_videos_that_the_tokenizer_cannot_analyse_would_be_set_aside(folder: Path):
    _, found = estimated_by(folder, room=0)
    assert found.reasons["OUT_OF_MEMORY"] == 4
    assert found.totals["tokens"].value == 0


def test_a_tokenizer_that_does_not_run_here_is_named(folder: Path, tmp_path: Path):
    result = estimate(folder, "--set", "tokenizer.dtype=float16", "--set", "tokenizer.device=cpu")
    assert result.exit_code == 1
    assert "float16 needs a GPU: the CPU computes in float32 alone" in result.stderr
    programs = write_programs(tmp_path / "programs", temporal_compression=8)
    result = estimate(folder, "--checkpoint", programs)
    assert result.exit_code == 1
    assert "error: tokenizer: checkpoint" in result.stderr.splitlines()[-1]
    assert "encoder.jit: turns frames" in result.stderr.splitlines()[-1]
