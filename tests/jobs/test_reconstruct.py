from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from video_corpora import SmallCorpus

from infotok_core.checkpoint import save_directory
from infotok_core.config import TokenizerConfig
from infotok_core.network import build_network
from jobs.cli import main
from schemas.ids import clip_id, video_id


@pytest.fixture(scope="module")
def corpus(small_corpus: SmallCorpus) -> Path:
    return small_corpus.parquet


def _run(corpus: Path, *arguments: object) -> Result:
    return CliRunner().invoke(main, ["reconstruct", str(corpus), *map(str, arguments)])


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _stem(uri: str) -> str:
    return f"{Path(uri).stem}-{video_id(uri)[:8]}"


def test_videos_are_written_and_every_window_is_a_line(corpus: Path, tmp_path: Path):
    result = _run(corpus, "--to", tmp_path / "out")
    assert result.exit_code == 0, result.output
    head, *lines, mean = result.stdout.splitlines()
    assert head.split() == ["clip_id", "rate", "tokens", "PSNR", "dB", "SSIM", "source"]
    expected = {clip_id(video_id(uri), i) for uri, i in (("a.mp4", 0), ("a.mp4", 1), ("b.mp4", 0))}
    assert {line.split()[0] for line in lines} == expected
    assert mean.startswith("mean of 21 frames")
    assert _names(tmp_path / "out") == sorted(
        f"{_stem(uri)}{suffix}" for uri in ("a.mp4", "b.mp4") for suffix in (".mp4", ".png")
    )


def test_tars_alone_are_enough(corpus: Path, tmp_path: Path):
    results = [_run(root, "--against") for root in (corpus, corpus.parent / "webdataset")]
    assert [result.exit_code for result in results] == [0, 0]
    lines = [sorted(result.stdout.splitlines()) for result in results]
    assert lines[0] == lines[1]


def test_measurements_go_to_a_file(corpus: Path, tmp_path: Path):
    out = tmp_path / "report.json"
    result = _run(corpus, "--against", "--json", out)
    assert result.exit_code == 0, result.output
    document = json.loads(out.read_text())
    frames = [clip["num_frames"] for clip in document["clips"]]
    assert sorted(frames) == [3, 9, 9]
    weighted = sum(clip["psnr_db"] * clip["num_frames"] for clip in document["clips"])
    assert document["mean"]["psnr_db"] == pytest.approx(weighted / 21)
    assert 0 < document["mean"]["ssim"] <= 1
    assert document["mean"]["rate"] == pytest.approx(0.5, abs=0.01)
    assert document["against"] == str(corpus.parent / "videos")


def test_json_on_stdout_is_nothing_but_json(corpus: Path):
    result = _run(corpus, "--against", corpus.parent / "videos", "--limit", 1, "--json", "-")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["mean"]["clips"] in (1, 2)


def test_side_by_side_finds_the_source_itself(corpus: Path, tmp_path: Path):
    clip = clip_id(video_id("a.mp4"), 1)
    result = _run(corpus, "--to", tmp_path / "out", "--side-by-side", "--clip", clip)
    assert result.exit_code == 0, result.output
    stem = f"{_stem('a.mp4')}-000001"
    assert _names(tmp_path / "out") == [f"{stem}.mp4", f"{stem}.png", f"{stem}.side-by-side.mp4"]


def test_a_manifest_or_glob_that_was_run_on_names_the_source_too(corpus: Path):
    result = _run(corpus, "--against", corpus.parent / "videos" / "*.mp4", "--video", "b.mp4")
    assert result.exit_code == 0, result.output
    assert "b.mp4" in result.stdout


def test_tokens_of_other_weights_are_refused(corpus: Path, tmp_path: Path):
    other = TokenizerConfig(
        channels=4, channels_mult=(1, 2, 2), num_res_blocks=1, patch_size=2, z_channels=16,
        levels=(8, 8, 8, 5, 5, 5), spatial_compression=8, temporal_compression=4, transformer=None,
    )  # fmt: skip
    save_directory(build_network(other, seed=1), tmp_path / "other", card="# Other\n")
    result = _run(corpus, "--to", tmp_path / "out", "--checkpoint", tmp_path / "other")
    assert result.exit_code == 4
    assert "was written by tokenizer" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "nothing to do"),
        (["--side-by-side"], "--to DIR"),
        (["--against", "--clip", "7"], "not a clip id"),
        (["--against", "--limit", "0"], "range"),
        (["--against", "--json", "/nowhere/x.json"], "/nowhere is no folder"),
    ],
)
def test_wrong_usage_exits_with_2(corpus: Path, arguments: list[str], words: str):
    result = _run(corpus, *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_what_is_missing_is_named(corpus: Path, tmp_path: Path):
    for arguments, code, words in (
        (["--against", "--video", "c.mp4"], 1, "has no c.mp4"),
        (["--against", str(tmp_path)], 1, "NOT_FOUND"),
        (["--against", str(tmp_path / "none")], 1, "does not exist"),
        (["--against", "--checkpoint", str(tmp_path / "none")], 1, "checkpoint"),
    ):
        result = _run(corpus, *arguments)
        assert result.exit_code == code, result.output
        assert words in result.stderr
    assert _run(tmp_path, "--against").exit_code == 4


def test_a_folder_that_cannot_be_written_is_named_and_not_the_corpus(corpus: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    result = _run(corpus, "--to", tmp_path / "file" / "out")
    assert result.exit_code == 1, result.output
    assert f"{tmp_path / 'file' / 'out'} cannot be written: [Errno 20]" in result.stderr
    assert "cannot read" not in result.stderr


def test_measurements_that_find_no_room_are_named_in_a_sentence(corpus: Path):
    result = _run(corpus, "--against", "--limit", 1, "--json", "/dev/full")
    assert result.exit_code == 1, result.output
    assert "error: /dev/full cannot be written: [Errno 28] No space left on device" in result.stderr


def test_a_limit_hides_no_video_that_is_not_there(corpus: Path):
    result = _run(corpus, "--against", "--limit", 2, "--video", "c.mp4", "--video", "a.mp4")
    assert result.exit_code == 1, result.output
    assert "has no c.mp4" in result.stderr
    assert _run(corpus, "--against", "--limit", 1, "--video", "a.mp4").exit_code == 0
