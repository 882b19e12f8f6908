"""What all tests share: the path (helpers are imported by name), and how much Hypothesis tries."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# Before anybody imports ray: a thread of a run that was stopped must not start another Ray.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
# Nor torch: networks as small as these gain nothing from a second thread that spins.
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

# Several suites may share two cores: no deadline, few examples.
settings.register_profile("frugal", deadline=None, max_examples=50)
settings.load_profile("frugal")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Which tests stay together when several processes share them (``-n 2 --dist loadgroup``).

    Those of a file do: they share fixtures. So do all of ``e2e``, which share a run in peace; they
    begin first, being the longest, and one Ray at a time is enough for two cores.
    """
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        folder = item.path.parent
        group = folder if folder.name == "e2e" else item.path
        item.add_marker(pytest.mark.xdist_group(str(group.relative_to(config.rootpath))))
    items.sort(key=lambda item: item.path.parent.name != "e2e")
