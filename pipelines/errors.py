"""What can stop a run. What stops only a video is a `schemas.failures.Failure`, never one of these.

```
PipelineError                 a clear sentence for the person who started the run
├── StorageError              a store refused, vanished, or ignores conditional writes
│   └── ConflictError         an object exists under this name with other bytes
├── PlanMismatchError         the source, the configuration or the weights changed under a run
├── IncompleteError           a later pass was asked for before the earlier one was finished
├── AccountingError           videos or windows do not add up
├── StalledError              no progress for ``runtime.watchdog_s``
└── InterruptedRunError       SIGTERM or Ctrl-C; everything stored so far is kept
```
"""

from __future__ import annotations

__all__ = [
    "AccountingError",
    "ConflictError",
    "IncompleteError",
    "InterruptedRunError",
    "PipelineError",
    "PlanMismatchError",
    "StalledError",
    "StorageError",
]


class PipelineError(Exception):
    """Base of the errors that end a run with a message instead of a traceback.

    All subclasses carry their message alone, so they survive pickling between processes.
    """

    exit_code = 1


class StorageError(PipelineError):
    """A store cannot be used as asked; the message names the URL and the cause."""


class ConflictError(StorageError):
    """An object with this name holds other bytes; it was left as it is."""


class PlanMismatchError(PipelineError):
    """The work folder belongs to another source, configuration or tokenizer: the message says."""

    exit_code = 4


class IncompleteError(PipelineError):
    """What this pass needs is not there yet; the message names the command that makes it."""

    exit_code = 4


class AccountingError(PipelineError):
    """Listed and committed + quarantined do not agree; the corpus is not published."""

    exit_code = 3


class StalledError(PipelineError):
    """The watchdog ended the run; the message says where it stood."""

    exit_code = 5


class InterruptedRunError(PipelineError):
    """The run was asked to stop; the same command goes on from here."""

    exit_code = 143
