"""Files and objects that hold their own name, for the tests of listings."""

from __future__ import annotations

from pathlib import Path

from s3_tools import filesystem


def fill(root: Path, *names: str) -> Path:
    """Files that hold their own name."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return root


def put(endpoint: str, bucket: str, *keys: str) -> None:
    """Objects that hold their own key."""
    fs = filesystem(endpoint)
    for key in keys:
        fs.pipe_file(f"{bucket}/{key}", key.encode())
