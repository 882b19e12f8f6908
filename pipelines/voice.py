"""Lines of progress, and never too long a silence: an hour of work without a word looks dead."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Voice"]

_SILENCE_S = 20.0


class Voice:
    """Says lines, and knows when it last did.

    Args:
        say: Takes a line.
        clock: Monotonic seconds.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._say = say
        self._clock = clock
        self._since = clock()

    def __call__(self, line: str) -> None:
        """Say it now."""
        self._say(line)
        self.listen()

    def listen(self) -> None:
        """Silence begins here: what went before is not held against it."""
        self._since = self._clock()

    def after_silence(self, line: Callable[[], str]) -> None:
        """Say it if nothing was said for 20 s; to be called again and again."""
        if self._clock() - self._since > _SILENCE_S:
            self(line())
