"""What all tests share: the path (helpers are imported by name), and how much Hypothesis tries."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from corpora import Corpus

# Before anybody imports ray: a thread of a run that was stopped must not start another Ray.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
# Nor torch: networks as small as these gain nothing from a second thread that spins.
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

# Several suites may share two cores: no deadline, few examples.
settings.register_profile("frugal", deadline=None, max_examples=50)
settings.load_profile("frugal")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Patience with Ray on a busy machine, and which tests stay together under ``-n 2``.

    Those of a file do, with ``--dist loadgroup``: they share fixtures. So do all files of ``e2e``
    that compare with one run in peace, which takes half a minute. They begin first, then the rest
    of ``e2e``, being the longest. Before xdist's own hook, which reads the marks.
    """
    is_shared = config.pluginmanager.hasplugin("xdist")
    in_peace = {item.path for item in items if "undisturbed" in _fixtures(item)}
    for item in items:
        is_e2e = item.path.parent.name == "e2e"
        if is_e2e and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(900))
        if is_shared:
            group = item.path.parent if item.path in in_peace else item.path
            item.add_marker(pytest.mark.xdist_group(str(group.relative_to(config.rootpath))))
    if is_shared:
        items.sort(key=lambda item: (item.path not in in_peace, item.path.parent.name != "e2e"))


def _fixtures(item: pytest.Item) -> list[str]:
    return item.fixturenames if isinstance(item, pytest.Function) else []


@pytest.fixture(scope="session")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A corpus of real footage, for what is tried on made rows otherwise."""
    # Not at the top: most tests need no network.
    import torch
    from real_corpora import build_real_corpus

    torch.set_num_threads(1)
    return build_real_corpus(tmp_path_factory.mktemp("footage"))
