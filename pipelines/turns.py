"""Many at a time, or one alone: what threads that share a process have to keep apart."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from threading import Condition

__all__ = ["Turns"]


class Turns:
    """Lets any number of threads in together, or a single one. Not to be entered twice."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._together = 0
        self._alone = False
        self._asking = 0

    @contextmanager
    def together(self) -> Generator[None]:
        """Beside others; those who want to be alone go first, or they would wait for ever."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone and not self._asking)
            self._together += 1
        try:
            yield
        finally:
            with self._changed:
                self._together -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Generator[None]:
        """When all others have left, and until the end nobody enters."""
        with self._changed:
            self._asking += 1
            try:
                self._changed.wait_for(lambda: not self._alone and not self._together)
            finally:
                # Whoever is interrupted here must not keep the others out.
                self._asking -= 1
                self._changed.notify_all()
            self._alone = True
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()
