from __future__ import annotations

import pytest
from click.testing import CliRunner
from shared import requires_shared, shared_dir

from jobs.parity import parity


@requires_shared
@pytest.mark.shared
def test_the_table_ends_in_a_verdict():
    prefix = shared_dir() / "golden" / "golden_small_seed0"
    result = CliRunner().invoke(parity, ["--golden", str(prefix)])
    assert result.exit_code == 0, result.output
    assert "differing tokens: 0\ndiffering mask bits: 0\n" in result.output
    assert result.output.splitlines()[-1].startswith("passed: 115 arrays")


def test_an_absent_set_is_a_usage_error(tmp_path):
    result = CliRunner().invoke(parity, ["--golden", str(tmp_path / "none")])
    assert result.exit_code == 2
    assert "none.json" in result.output
