"""What all tests share: the path (helpers are imported by name), and how much Hypothesis tries."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hypothesis import settings

# Before anybody imports ray: a thread of a run that was stopped must not start another Ray.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
sys.path.insert(0, str(Path(__file__).parent))

# Several suites may share two cores: no deadline, few examples.
settings.register_profile("frugal", deadline=None, max_examples=50)
settings.load_profile("frugal")
