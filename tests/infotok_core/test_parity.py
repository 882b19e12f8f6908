from __future__ import annotations

import shutil

import numpy as np
import pytest
from shared import requires_shared, shared_dir

from infotok_core.errors import CheckpointError
from infotok_core.golden import read_golden
from infotok_core.parity import check_golden, summarise

pytestmark = [requires_shared, pytest.mark.shared]


@pytest.fixture(scope="module")
def prefix():
    return shared_dir() / "golden" / "golden_small_seed0"


@pytest.fixture(scope="module")
def comparisons(prefix):
    return check_golden(read_golden(prefix))


def test_every_stage_matches_the_published_arithmetic(comparisons):
    assert [c.name for c in comparisons if not c.passed] == []
    assert len(comparisons) == 115
    assert max(c.max_error for c in comparisons if c.kind == "values") < 5e-5


def test_tokens_and_masks_are_identical(comparisons):
    checked = {kind: [c for c in comparisons if c.kind == kind] for kind in ("tokens", "mask bits")}
    assert sum(c.size for c in checked["tokens"]) == 384
    assert sum(c.size for c in checked["mask bits"]) == 3456
    assert all(c.num_different == 0 for group in checked.values() for c in group)


def test_the_sliding_window_pipeline_is_off_by_one_level_in_rare_pixels_at_most(comparisons):
    pixels = [c for c in comparisons if c.kind == "pixels"]
    assert len(pixels) == 2
    for comparison in pixels:
        assert comparison.max_error <= 1
        assert comparison.num_different < 3e-4 * comparison.size


def test_stages_are_summed_up_without_clip_and_rate(comparisons):
    stages = {s.stage: s for s in summarise(comparisons)}
    assert stages["global_elbo.mask"].num_arrays == 10
    assert stages["pipe.static.out_u8"].num_arrays == 1
    assert stages["enc_h"].num_arrays == 2


def test_an_unknown_array_and_a_moved_value_fail(prefix, tmp_path):
    for suffix in ("json", "safetensors"):
        shutil.copy(f"{prefix}.{suffix}", tmp_path / f"g.{suffix}")
    with np.load(f"{prefix}.npz") as arrays:
        moved = arrays["rand.enc_h"].copy()
        moved.flat[0] += 0.01
        np.savez(
            tmp_path / "g.npz",
            **{
                "rand.video": arrays["rand.video"],
                "rand.enc_h": moved,
                "rand.fsq_idx": arrays["rand.fsq_idx"],
                "rand.static.0.5.mystery": moved,
                "mystery": moved,
            },
        )
    passed = {c.name: c.passed for c in check_golden(read_golden(tmp_path / "g"))}
    assert passed == {
        "rand.enc_h": False,
        "rand.fsq_idx": True,
        "rand.static.0.5.mystery": False,
        "mystery": False,
    }


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.json"):
        read_golden(tmp_path / "none")


@pytest.mark.parametrize(
    ("suffix", "content", "cause"),
    [
        ("npz", b"PK and no more", "cannot be read"),
        ("safetensors", b"no weights", "damaged or not safetensors"),
        ("json", b"{", "cannot be read"),
        ("json", b"{}", "has no 'config'"),
        ("json", b"[]", "is no JSON object"),
    ],
)
def test_a_damaged_file_is_named(prefix, tmp_path, suffix, content, cause):
    for name in ("json", "safetensors", "npz"):
        shutil.copy(f"{prefix}.{name}", tmp_path / f"g.{name}")
    (tmp_path / f"g.{suffix}").chmod(0o644)
    (tmp_path / f"g.{suffix}").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"g\.{suffix}: {cause}"):
        read_golden(tmp_path / "g")
