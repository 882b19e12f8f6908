"""The errors of this package.

InfoTokError
├── CheckpointError    a tokenizer that cannot be used, with the file and the cause
└── WeightsError       weights of a standard network (VGG, I3D) that cannot be used, likewise
"""

from __future__ import annotations

__all__ = ["CheckpointError", "InfoTokError", "WeightsError"]


class InfoTokError(Exception):
    """Anything this package reports that is not a caller's mistake (those are `ValueError`)."""


class CheckpointError(InfoTokError):
    """A checkpoint that is absent, damaged, or of another network.

    Attributes:
        path: The file or directory, as text.
        cause: One sentence a person can act on.
    """

    def __init__(self, path: str, cause: str) -> None:
        # Both in args: the error has to survive pickling between processes.
        super().__init__(path, cause)
        self.path = path
        self.cause = cause

    def __str__(self) -> str:
        return f"checkpoint {self.path}: {self.cause}"


class WeightsError(InfoTokError):
    """Weights that a user supplied for a standard network, and that are not those.

    Attributes:
        path: The file, as text.
        cause: One sentence a person can act on.
    """

    def __init__(self, path: str, cause: str) -> None:
        # Both in args: the error has to survive pickling between processes.
        super().__init__(path, cause)
        self.path = path
        self.cause = cause

    def __str__(self) -> str:
        return f"weights {self.path}: {self.cause}"
