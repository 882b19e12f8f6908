"""The whole job on real files of many codecs and containers, by the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from shared import requires_shared

pytestmark = [pytest.mark.ray, pytest.mark.shared]

# As a person would give them: see docs/originals.md.
SET_ASIDE = {
    "NOT_A_VIDEO": 4,
    "CORRUPT_STREAM": 2,
    "NO_VIDEO_STREAM": 1,
    "UNSUPPORTED_CODEC": 1,
}


@pytest.mark.slow
@requires_shared
@pytest.mark.timeout(3600)
def test_every_original_is_tokenised_or_set_aside_for_its_reason(
    repository: Path, tmp_path: Path
) -> None:
    # A sixteenth of the pixels, or it would take an hour.
    command = [sys.executable, "benchmarks/originals.py", "--size", "64"]
    command += ["--corpus", str(tmp_path / "corpus"), "--output", str(tmp_path / "page.md")]
    done = subprocess.run(command, cwd=repository, stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout)
    assert set(found["exit_codes"].values()) == {0}
    run = found["run"]
    assert run["quarantine_reasons"] == SET_ASIDE
    assert run["videos_committed"] + sum(SET_ASIDE.values()) == run["videos_listed"] == 130
    assert run["rate_realised"] == pytest.approx(0.5, rel=1e-3)
    assert set(found["rows"].values()) == {run["windows"]}
    assert found["reconstructed"]["psnr_db"] > 18
    page = (tmp_path / "page.md").read_text()
    assert "| formats/io__gs-16b-2c-44100hz_b8b1bd.mp4 | NO_VIDEO_STREAM |" in page
