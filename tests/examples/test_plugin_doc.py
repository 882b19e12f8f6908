"""The snippet of docs/plugin.md, run as it stands there."""

from __future__ import annotations

import importlib.util
import re
import sys
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from infotok_core.program_settings import ProgramSettings

PAGE = Path(__file__).parents[2] / "docs" / "plugin.md"


@pytest.fixture
def snippet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Its module, after it ran in an empty folder."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) == 1
    # A real file: TorchScript reads the source of what it compiles.
    path = tmp_path / "plugin_snippet.py"
    path.write_text(blocks[0])
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("plugin_snippet", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "plugin_snippet", module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        spec.loader.exec_module(module)
    return module


def test_the_snippet_puts_adaptive_length_on_a_tokenizer(snippet: Any):
    assert snippet.analysis.codes_Bthw.shape == (1, 9, 8, 8)
    assert int(snippet.keep.sum()) == 9 * 8 * 8 // 2
    assert snippet.shown.shape == snippet.video.shape
    assert snippet.shown.dtype == torch.uint8


def test_the_page_lists_every_setting():
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \|$", PAGE.read_text(encoding="utf-8"), re.M)
    assert set(rows) == {field.name for field in fields(ProgramSettings)} | {"format_version"}
