"""To try whether a place can be written to makes the folders above it; they are not to stay."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipelines.storage import Store

__all__ = ["existing_folder", "no_folders_left"]


def existing_folder(folder: Path) -> Path:
    """The folder, or the next one above that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())


@contextmanager
def no_folders_left(*stores: Store, when_refused: bool = False) -> Generator[None]:
    """Remove what was made of the folders of ``stores`` in this block and holds nothing.

    Args:
        when_refused: Only if the block ends with an error.
    """
    before = [(Path(s.url), existing_folder(Path(s.url))) for s in stores if s.local]
    try:
        yield
    except BaseException:
        _remove(before)
        raise
    if not when_refused:
        _remove(before)


def _remove(folders: list[tuple[Path, Path]]) -> None:
    for folder, before in folders:
        for made in (folder, *folder.parents):
            if made == before:
                break
            # It holds something, or was never made.
            with suppress(OSError):
                made.rmdir()
