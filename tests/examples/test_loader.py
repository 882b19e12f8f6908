"""The snippets of docs/loader.md as they stand there, and the example that trains on a corpus."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import pytest
from corpora import build_corpus
from video_corpora import analyse_videos, write_corpus

from infotok_core.tokenizer import Tokenizer
from pipelines.config import SpaceConfig, WindowConfig

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "loader.md"
WINDOW, SPACE = WindowConfig(frames=9, fps=2), SpaceConfig(size=64)

pytestmark = pytest.mark.filterwarnings("ignore:.*set_vital", "ignore:This DataLoader will create")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``tokens-50`` and ``tokens-100`` of the bundled clips."""
    folder = tmp_path_factory.mktemp("corpora")
    clips = ROOT / "examples" / "clips"
    tokenizer = Tokenizer.load("default")
    videos = analyse_videos(tokenizer, clips, window=WINDOW, space=SPACE)
    for name, rate in (("tokens-50", 0.5), ("tokens-100", 1.0)):
        write_corpus(
            folder / name, videos, tokenizer=tokenizer, source_root=clips, window=WINDOW,
            space=SPACE, rate=rate,
        )  # fmt: skip
    return folder


def snippets() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)


def test_the_first_snippet_has_ten_lines():
    lines = [line for line in snippets()[0].splitlines() if line.strip()]
    assert len(lines) <= 10


def test_the_snippets_run_one_after_the_other(corpora: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("torchdata")
    monkeypatch.chdir(corpora)
    names: dict[str, Any] = {}
    for snippet in snippets():
        exec(compile(snippet, str(PAGE), "exec"), names)
    assert names["batch"]["tokens"].shape[1] == 1024
    assert names["video"].shape == (9, 64, 64, 3)
    assert names["state"] is not None


def test_a_world_model_trains_on_both_rates_and_draws_a_video(corpora: Path, tmp_path: Path):
    done = train(tmp_path, corpora / "tokens-50", corpora / "tokens-100", "--steps", "12")
    assert done.returncode == 0, done.stderr
    half, whole = json.loads((tmp_path / "results.json").read_text())
    assert (half["rate"], whole["rate"]) == (pytest.approx(0.5, abs=0.01), 1.0)
    assert whole["tokens_per_s"] == pytest.approx(2 * half["tokens_per_s"], rel=0.02)
    # The way from one token to the next is certain where all are there, and is learnt at once.
    assert whole["held_place_bits"] < half["held_place_bits"]
    losses = [float(bits) for bits in re.findall(r"step \d+: (\S+) bits", done.stdout)]
    assert losses[11] < losses[0] - 1
    for name in ("tokens-50", "tokens-100"):
        (path,) = tmp_path.glob(f"{name}-*.mp4")
        with av.open(str(path)) as container:
            frames = list(container.decode(video=0))
        # All latent frames of a window; the last one of a tail holds less than four.
        assert 5 < len(frames) <= 9
        assert (frames[0].width, frames[0].height) == (128, 64)


def train(out: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The example, small."""
    command = [
        sys.executable, ROOT / "examples" / "train_world_model.py", "--out", out, "--context",
        "256", "--layers", "1", "--heads", "1", "--held", "0.5", *arguments,
    ]  # fmt: skip
    env = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""}
    return subprocess.run(
        [*map(str, command)], capture_output=True, text=True, env=env, check=False
    )


def test_a_world_model_trains_for_a_time_in_half_precision(corpora: Path, tmp_path: Path):
    # As on a GPU, but for its attention.
    options = ("--seconds", "0.5", "--precision", "bf16", "--workers", "1", "--draw", "0")
    done = train(tmp_path, corpora / "tokens-50", *options)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((tmp_path / "results.json").read_text())
    assert f"{found['steps']} steps for each corpus" in done.stdout
    assert found["steps_per_s"] > 0
    assert 0 <= found["waited_share"] < 1
    assert found["items_per_s"] == pytest.approx(256 * found["steps_per_s"])
    assert list(tmp_path.glob("*.mp4")) == []


def test_a_cpu_does_not_learn_with_flex_attention(tmp_path: Path):
    done = train(tmp_path, tmp_path, "--attention", "flex")
    assert done.returncode == 2
    assert "--attention sdpa" in done.stderr


def test_a_context_that_holds_no_whole_window_is_refused(corpora: Path, tmp_path: Path):
    """The seconds of a held-out window would count once for each of its pieces."""
    done = train(tmp_path, corpora / "tokens-100", "--context", "192", "--steps", "1")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.endswith("has windows of 192 tokens: --context must be 193 or more")


def test_corpora_of_other_videos_are_not_compared(corpora: Path, tmp_path: Path):
    other = tmp_path / "other"
    build_corpus(other, num_videos=3)
    done = train(tmp_path, corpora / "tokens-50", other, "--steps", "1", "--draw", "0")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("other holds other videos than the first corpus")
