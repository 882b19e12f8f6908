"""``infotok evaluate`` from videos to JSON, tables and pictures."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from evaluations import FRAMES, SIDE, WINDOWS, write_evaluation_videos, write_small_checkpoint

from infotok_core.tokenizer import Tokenizer
from jobs.cli import main
from pipelines.evaluation.plots import write_plots
from pipelines.evaluation.tables import evaluation_markdown
from schemas.evaluation import EvaluationReport


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    write_small_checkpoint(folder / "checkpoint")
    return write_evaluation_videos(folder / "videos")


def evaluate(videos: Path, *options: object) -> Result:
    arguments = ["evaluate", videos, "--frames", FRAMES, "--size", SIDE, "--threads", 1]
    arguments += [] if "--workers" in options else ["--workers", 0]
    if "--checkpoint" not in options:
        arguments += ["--checkpoint", videos.parent / "checkpoint"]
    return CliRunner().invoke(main, [*map(str, [*arguments, *options]), "--device", "cpu"])


@pytest.fixture(scope="module")
def done(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("out")
    options = ("--sweep", "full", "--grid-points", 4, "--rates", "1.0,0.5", "--search-psnr", 15)
    files = ("--json", folder / "found.json", "--markdown", folder / "found.md")
    return folder, evaluate(videos, *options, *files)


@pytest.fixture(scope="module")
def report(done: tuple[Path, Result]) -> EvaluationReport:
    return EvaluationReport.from_bytes((done[0] / "found.json").read_bytes())


def test_json_holds_everything_and_says_what_it_is(
    done: tuple[Path, Result], report: EvaluationReport, videos: Path
):
    _, result = done
    assert result.exit_code == 0, result.output
    assert report.kind == "infotok-evaluation"
    assert report.command[0] == "infotok"
    assert report.fingerprint == Tokenizer.load(videos.parent / "checkpoint").fingerprint
    assert report.source_root == str(videos)
    assert report.num_codes == 64000
    assert report.settings["frames"] == FRAMES
    assert report.settings["rates"] == (1.0, 0.5)
    assert report.machine["torch"] == torch.__version__
    assert len(report.clips) == sum(WINDOWS.values())
    assert {item.source for item in report.left_out} == {"broken.mp4", "short.mp4"}
    assert report.rates == [1.0, 0.5]


def test_tables_go_to_stdout_and_to_the_file(done: tuple[Path, Result], report: EvaluationReport):
    folder, result = done
    text = (folder / "found.md").read_text()
    assert result.stdout == text == evaluation_markdown(report)
    for title in ("Table 1", "Table 2", "Table 3", "The ElasticTok mechanism", "Left out"):
        assert f"## {title}" in text
    assert "measured 6 of 6 windows" in result.stderr
    assert "broken.mp4 is left out: NOT_A_VIDEO" in result.stderr


def test_a_table_line_says_what_the_json_says(done: tuple[Path, Result], report: EvaluationReport):
    outcome = report.outcome("global_elbo", rate=0.5)
    assert outcome is not None
    line = (
        f"| 0.5 | ELBO router | {outcome.rate:.4f} | {outcome.bpp16:.4f} | {outcome.psnr_db:.2f} "
        f"| {outcome.psnr_pooled_db:.2f} | {outcome.psnr_frames_db:.2f} | {outcome.ssim:.4f} | "
        "1 + 1 |"
    )
    assert line in done[1].stdout
    widths = [
        {row.count("|") for row in part.splitlines() if row.startswith("|")}
        for part in done[1].stdout.split("## ")
    ]
    assert all(len(found) <= 1 for found in widths)


def test_pictures_are_drawn_of_what_there_is(report: EvaluationReport, tmp_path: Path):
    pytest.importorskip("matplotlib")
    from matplotlib.image import imread

    files = write_plots(report, tmp_path / "plots")
    assert sorted(path.stem for path in files) == [
        "clips",
        "rate_distortion",
        "rate_distortion_selections",
        "routers",
        "routers_mean",
        "selections",
        "tokens",
    ]
    for path in files:
        image = imread(path)
        assert image.shape[:2] == (900, 1600)
        # Something is drawn, on white.
        assert (image[0, 0, :3] == 1).all()
        assert np.ptp(image[..., :3]) > 0.5
    basic = report.model_copy(
        update={
            "outcomes": tuple(
                item
                for item in report.outcomes
                if item.router in ("static", "global_elbo") and item.selection == "information"
            )
        }
    )
    assert {path.stem for path in write_plots(basic, tmp_path / "basic")} == {
        "rate_distortion",
        "routers",
        "routers_mean",
        "tokens",
    }


def test_the_json_alone_gives_tables_and_pictures(
    done: tuple[Path, Result], report: EvaluationReport, tmp_path: Path
):
    pytest.importorskip("matplotlib")
    page, pictures = tmp_path / "page.md", tmp_path / "my pictures"
    options = ["--from-json", done[0] / "found.json", "--markdown", page, "--plots", pictures]
    result = CliRunner().invoke(main, list(map(str, ["evaluate", *options])))
    assert result.exit_code == 0, result.output
    assert result.stdout == evaluation_markdown(report)
    text = page.read_text()
    links = re.findall(r"^!\[[^]]+\]\(<(.+)>\)$", text, re.MULTILINE)
    assert sorted(links) == sorted(f"my pictures/{path.name}" for path in pictures.iterdir())
    # It is the page that measuring it gives, with pictures and the command that put them in.
    kept = [line for line in text.splitlines() if line and not line.startswith(("!", "    "))]
    wanted = [line for line in result.stdout.splitlines() if line and not line.startswith("    ")]
    assert kept == wanted
    for title in ("rate 1", "the same rate for all"):
        assert f"against {title} " in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "INPUT names videos, --from-json FILE results"),
        (
            ("videos", "--from-json", __file__),
            "measures nothing, so it takes --markdown and --plots alone, not INPUT",
        ),
        (("--from-json", __file__, "--rates", "1", "--profile", "me"), "not --rates, --profile"),
        (("--from-json", __file__, "--json", "-"), "not --json"),
    ],
)
def test_results_of_a_file_are_not_measured_again(options: tuple[str, ...], message: str):
    result = CliRunner().invoke(main, ["evaluate", *options])
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_file_that_is_no_evaluation_is_named(tmp_path: Path):
    (tmp_path / "other.json").write_text('{"format_version": 1, "kind": "other"}')
    for path, cause in ((tmp_path / "other.json", "EvaluationReport"), (__file__, "not JSON")):
        result = CliRunner().invoke(main, ["evaluate", "--from-json", str(path)])
        assert result.exit_code == 1
        assert f"error: {path}: " in result.stderr
        assert cause in result.stderr


def test_without_matplotlib_the_extra_is_named_before_any_work(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = evaluate(videos, "--plots", tmp_path / "plots")
    assert result.exit_code == 2
    assert "pip install 'infotok[plots]'" in result.stderr
    assert "analysed" not in result.stderr


def test_json_alone_can_be_printed(videos: Path):
    result = evaluate(videos, "--rates", 1, "--max-windows", 1, "--workers", 2, "--json", "-")
    assert result.exit_code == 0, result.output
    found = EvaluationReport.from_bytes(result.stdout.encode())
    assert len(found.clips) == 1
    assert found.settings["workers"] == 2
    assert [(item.router, item.rate) for item in found.outcomes] == [
        ("static", 1.0),
        ("global_elbo", 1.0),
        ("token_threshold", 1.0),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rates", "1,half"), "'1,half' is not numbers with commas between them"),
        (("--rates", "0.01"), "rates must be in"),
        (("--frames", "6"), "window.frames must be 1 + 4k"),
        (("--size", "100"), "space.size"),
        (("--json", "no/such/folder/x.json"), "no/such/folder is no folder"),
        (("--json", "x", "--markdown", "./x"), "--json and --markdown name the same file"),
        (("--json", "/proc/x.json"), "/proc/x.json cannot be written"),
        (("--markdown", "/proc/x.md"), "/proc/x.md cannot be written"),
        (("--plots", "/proc/x"), "/proc/x"),
        (("--search-psnr", "nan"), "thresholds of the search must be in [0, 100] dB"),
        (("--search-psnr", "30,-inf"), "thresholds of the search must be in [0, 100] dB"),
        (("--lpips-vgg", __file__), "LPIPS takes both"),
        (("--dtype", "bfloat16"), "the CPU computes in float32 alone"),
    ],
)
def test_wrong_usage_is_said_before_any_work(videos: Path, options: tuple[str, ...], message: str):
    result = evaluate(videos, *options)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--checkpoint", "no-such-checkpoint"), "checkpoint no-such-checkpoint: does not exist"),
        (("--lpips-vgg", __file__, "--lpips-heads", __file__), f"weights {__file__}: is not a"),
        (("--i3d", __file__), f"weights {__file__}: is not a zip archive"),
    ],
)
def test_files_that_cannot_be_used_are_a_sentence(
    videos: Path, options: tuple[str, ...], message: str
):
    result = evaluate(videos, *options)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: ")


def test_no_advice_of_torch_to_load_objects_is_passed_on(videos: Path, tmp_path: Path):
    file = str(tmp_path / "objects.pt")
    torch.save({"model": {"a": Path("an object")}}, file)
    for options, message in (
        (("--checkpoint", file), "holds objects other than tensors, which are not loaded"),
        (("--lpips-vgg", file, "--lpips-heads", file), "is not a file of tensors alone"),
    ):
        result = evaluate(videos, *options)
        assert result.exit_code == 1
        assert message in result.stderr
        assert "weights_only" not in result.stderr


def test_a_source_without_clips_is_a_sentence(videos: Path, tmp_path: Path):
    result = evaluate(tmp_path / "none", "--checkpoint", videos.parent / "checkpoint")
    assert result.exit_code == 1
    assert "does not exist" in result.stderr
    checkpoint = videos.parent / "checkpoint"
    result = evaluate(videos / "short.mp4", "--checkpoint", checkpoint)
    assert result.exit_code == 1
    assert "holds no full window to evaluate" in result.stderr


def test_the_latent_router_is_compared_if_asked_for(videos: Path, tmp_path: Path):
    checkpoint = write_small_checkpoint(tmp_path / "routed", latent_router=8)
    options = ("--latent-router", "--rates", "0.5", "--max-windows", 2, "--json", tmp_path / "j")
    result = evaluate(videos, *options, "--checkpoint", checkpoint)
    assert result.exit_code == 0, result.output
    report = EvaluationReport.from_bytes((tmp_path / "j").read_bytes())
    assert report.prediction is not None
    assert report.outcome("global_latent", "latent", rate=0.5) is not None
    assert "## The latent router" in result.stdout
    assert f"costs {report.prediction.cost_ratio:.2f} times one without" in result.stdout
    refused = evaluate(videos, "--latent-router")
    assert refused.exit_code == 2
    assert "this checkpoint has no latent router" in refused.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is always full")
def test_what_cannot_be_written_costs_nothing_else(videos: Path, tmp_path: Path):
    full = tmp_path / "full.json"
    full.symlink_to("/dev/full")
    options = ("--rates", 1, "--max-windows", 1, "--json", full, "--markdown", tmp_path / "e.md")
    result = evaluate(videos, *options)
    assert result.exit_code == 1
    assert (
        result.stderr.splitlines()[-1]
        == f"error: {full} cannot be written: No space left on device"
    )
    assert result.stdout == (tmp_path / "e.md").read_text()
    assert "Table 1" in result.stdout


def test_a_source_that_is_asked_for_is_named_if_it_holds_nothing(videos: Path, tmp_path: Path):
    checkpoint = ("--checkpoint", videos.parent / "checkpoint")
    result = evaluate(videos / "short.mp4", *checkpoint)
    wanted = "short.mp4 holds no full window to evaluate; of its 1 files none has one"
    assert wanted in result.stderr.splitlines()[-1]
    result = evaluate(tmp_path, *checkpoint)
    assert result.stderr.splitlines()[-1] == f"error: {tmp_path} holds no full window to evaluate"


def test_a_report_of_another_kind_or_length_is_refused(done: tuple[Path, Result]):
    document = json.loads((done[0] / "found.json").read_bytes())
    other = [item | {"num_tokens": [1] * len(document["clips"])} for item in document["outcomes"]]
    for wrong in (
        {"kind": "other"}, {"format_version": 99}, {"clips": document["clips"][:1]},
        {"clips": [], "outcomes": []}, {"outcomes": []}, {"outcomes": other},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="EvaluationReport"):
            EvaluationReport.from_bytes(json.dumps(document | wrong).encode())
