"""Nothing global but the path: tests import their helpers (`shared`, `strategies`, ...) by name."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
