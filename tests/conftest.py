"""Nothing global but the path: tests import their helpers (`shared`, `strategies`, ...) by name."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Before anybody imports ray: a thread of a run that was stopped must not start another Ray.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
sys.path.insert(0, str(Path(__file__).parent))
