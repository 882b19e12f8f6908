"""Where the shared videos and golden arrays are, if they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def shared_dir() -> Path | None:
    """The folder with real videos and golden arrays: ``$INFOTOK_SHARED`` or ``../shared``."""
    folder = Path(os.environ.get("INFOTOK_SHARED", Path(__file__).parents[2] / "shared"))
    return folder if (folder / "data").is_dir() else None


requires_shared = pytest.mark.skipif(
    shared_dir() is None, reason="needs the shared videos and golden arrays in ../shared"
)
