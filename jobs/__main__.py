"""``python -m jobs …``: the command line, for ``ray job submit --working-dir .``."""

from __future__ import annotations

from jobs.cli import main

main()
