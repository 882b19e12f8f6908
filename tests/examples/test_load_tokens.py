from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from corpora import build_corpus

EXAMPLES = Path(__file__).parents[2] / "examples"
CLIPS = EXAMPLES / "clips"


def _lines(corpus: Path) -> list[list[str]]:
    # In a folder of its own: the snippet must not need this repository.
    command = [sys.executable, "-I", str(EXAMPLES / "load_tokens.py"), str(corpus)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=corpus, check=False)
    assert result.returncode == 0, result.stderr
    return [line.split(maxsplit=1) for line in result.stdout.splitlines()]


def test_the_snippet_reads_both_formats_alike(tmp_path: Path):
    corpus = build_corpus(tmp_path / "corpus")
    lines = _lines(tmp_path / "corpus")
    by_format = {
        name: [rest for kind, rest in lines if kind == name] for name in ("parquet", "webdataset")
    }
    assert by_format["parquet"] == by_format["webdataset"]
    assert len(by_format["parquet"]) == corpus.info.totals.clips
    kept = sum(int(line.split(") ")[1].split()[0]) for line in by_format["parquet"])
    assert kept == corpus.info.totals.tokens


@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_one_format_is_enough(tmp_path: Path, kind: str):
    build_corpus(tmp_path / "corpus", formats=(kind,), num_videos=2)
    assert {line[0] for line in _lines(tmp_path / "corpus")} == {kind}


def test_every_bundled_clip_is_attributed_and_small():
    text = (EXAMPLES / "ATTRIBUTION.md").read_text(encoding="utf-8")
    clips = sorted(CLIPS.glob("*.m*4")) + sorted(CLIPS.glob("*.mkv"))
    assert len(clips) >= 3
    assert sum(clip.stat().st_size for clip in clips) < 1_000_000
    for clip in clips:
        (line,) = [line for line in text.splitlines() if line.startswith(f"| `{clip.name}`")]
        assert "CC0 1.0" in line or "CC BY 4.0" in line
        assert "https://github.com/" in line
