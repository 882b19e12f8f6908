"""Every input of faults.tar and of the originals, and the reason that each is set aside for."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import pytest
from decoding_helpers import request_for
from shared import requires_shared, shared_dir

from pipelines.decode import DecodeError, DecoderProcess
from schemas.failures import FailureReason as R
from schemas.ids import quote_path

pytestmark = [requires_shared, pytest.mark.shared]

LONG = "long_20min_72000_frames.mp4"
SET_ASIDE = {
    "audio_only.mp4": R.NO_VIDEO_STREAM,
    "audio_with_cover_art.m4a": R.NO_VIDEO_STREAM,
    "wav_named.mp4": R.NO_VIDEO_STREAM,
    "bomb_16000x16000_1frame.mp4": R.TOO_LARGE,
    "bomb_65535x65535.gif": R.TOO_LARGE,
    "bomb_8192x8192_60frames.mp4": R.TOO_LARGE,
    "bomb_16384x16384.png": R.NOT_A_VIDEO,
    "git_lfs_pointer.mp4": R.NOT_A_VIDEO,
    "html_404_page.mp4": R.NOT_A_VIDEO,
    "random_bytes.mp4": R.NOT_A_VIDEO,
    "text_named.mp4": R.NOT_A_VIDEO,
    "dir_with_files.mp4": R.NOT_A_VIDEO,
    "x.mp4": R.NOT_A_VIDEO,
    "corrupt_avcC_extradata.mp4": R.CORRUPT_CONTAINER,
    "corrupt_stsz_count.mp4": R.CORRUPT_CONTAINER,
    "corrupted_packets_middle.mp4": R.CORRUPT_STREAM,
    "zeroed_middle.mp4": R.CORRUPT_STREAM,
    "starts_without_keyframe.ts": R.CORRUPT_STREAM,
    "header_only_32bytes.mp4": R.TRUNCATED,
    "truncated_fragmented.mp4": R.TRUNCATED,
    "truncated_midstream_faststart.mp4": R.TRUNCATED,
    "truncated_moov_missing.mp4": R.TRUNCATED,
    "dangling_symlink.mp4": R.NOT_FOUND,
    "loop_symlink.mp4": R.NOT_FOUND,
    "zero_byte.mp4": R.EMPTY_FILE,
}
ORIGINALS_SET_ASIDE = {
    "PaddleVideo__VideoQuality_4737a1.gif": R.NOT_A_VIDEO,
    "torchcodec__gradient_171743.gif": R.NOT_A_VIDEO,
    "web-platform-tests__background_b3185c.gif": R.NOT_A_VIDEO,
    "web-platform-tests__bg_flower_506cea.gif": R.NOT_A_VIDEO,
    "decord__corrupted_5e5bec.mp4": R.CORRUPT_STREAM,
    "web-platform-tests__test_03e625.mp4": R.CORRUPT_STREAM,
    "web-platform-tests__2x2-green_29903c.ogv": R.UNSUPPORTED_CODEC,
    "io__gs-16b-2c-44100hz_b8b1bd.mp4": R.NO_VIDEO_STREAM,
}


def outcome_of(path: Path, decoder: DecoderProcess) -> tuple[str, int]:
    request = request_for(path, frames=33, side=16)
    try:
        num_yielded = sum(1 for _ in decoder.windows(request))
    except DecodeError as error:
        return error.failure.reason.value, 0
    assert num_yielded == decoder.summary.num_windows
    return "tokenised", num_yielded


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    with tarfile.open(shared_dir() / "data" / "faults.tar") as archive:
        archive.extractall(folder, filter="fully_trusted")
    return folder / "faults"


@pytest.fixture(scope="module")
def outcomes(faults):
    with DecoderProcess() as decoder:
        return {
            quote_path(path.name): outcome_of(path, decoder)
            for path in faults.iterdir()
            if path.name != LONG
        }


@pytest.mark.parametrize(("name", "reason"), SET_ASIDE.items())
def test_a_fault_is_set_aside_with_the_reason_a_person_would_give(outcomes, name, reason):
    assert outcomes[name] == (reason.value, 0)


def test_everything_else_is_tokenised(outcomes):
    others = {name: outcome for name, outcome in outcomes.items() if name not in SET_ASIDE}
    assert len(others) == 62
    assert [item for item in others.items() if item[1][0] != "tokenised"] == []


def test_the_page_of_faults_is_up_to_date(outcomes):
    page = Path(__file__).parents[2] / "docs" / "faults.md"
    rows = re.findall(r"^\| (.+?) \| (\w+) \| (\d+) \| ", page.read_text(), re.MULTILINE)
    listed = {name: (outcome, int(windows)) for name, outcome, windows in rows}
    for name, outcome in outcomes.items():
        if len(name) <= 60:
            assert listed[name] == outcome, name


def originals(largest: int) -> list[Path]:
    root = shared_dir()
    if root is None:
        return []
    files = (path for path in (root / "data" / "originals").rglob("*") if path.is_file())
    return sorted(path for path in files if path.stat().st_size <= largest)


def test_small_originals_are_tokenised_but_for_those_that_cannot_be():
    check_originals(originals(80_000))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_originals_are_tokenised_but_for_those_that_cannot_be():
    check_originals(originals(1 << 40))


def check_originals(paths: list[Path]) -> None:
    with DecoderProcess() as decoder:
        found = {path.name: outcome_of(path, decoder)[0] for path in paths}
    expected = {path.name: ORIGINALS_SET_ASIDE.get(path.name, "tokenised") for path in paths}
    assert found == expected


@pytest.mark.slow
def test_twenty_minutes_are_decoded_to_the_end(faults):
    with DecoderProcess() as decoder:
        assert outcome_of(faults / LONG, decoder) == ("tokenised", 2182)
        assert decoder.summary.num_frames_decoded == 72_000
