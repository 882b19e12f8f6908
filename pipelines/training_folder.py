"""The folder of a training run: what the run is, and where it stands; never half of either."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, cast

import torch

from pipelines.errors import PipelineError, PlanMismatchError
from pipelines.file_writes import writing
from schemas.layout import MANIFEST_PATH

__all__ = ["TrainingFolder", "setting_now", "what_differs"]

_STATE_VERSION = 2
_WEIGHTS = ("model.safetensors", "compressor.safetensors")
_PROGRAMS = ("encoder.jit", "decoder.jit")
_CARD = "README.md"


class TrainingFolder:
    """``OUTPUT/training``.

    Args:
        output: The checkpoint directory that a run writes.
        base: Directory of programs that get a compressor; they may lie in ``output`` already.
    """

    def __init__(self, output: Path, base: str | None = None) -> None:
        self._output = output
        in_place = base is not None and Path(base).resolve() == output.resolve()
        self._others = _WEIGHTS if in_place else (*_WEIGHTS, *_PROGRAMS)
        # A corpus of tokens has a card, too; beside programs a config.json is not touched.
        self._written = (_CARD,) if in_place else (_CARD, "config.json", MANIFEST_PATH)
        self.path = output / "training"
        self._recipe = self.path / "recipe.json"
        self._state = self.path / "state.pt"

    def identity(self) -> dict[str, Any]:
        """What the run is whose state lies here; empty if nothing was trained yet.

        Raises:
            PipelineError: If it cannot be read, or OUTPUT holds a checkpoint of somebody else.
        """
        if not self._recipe.exists():
            self._require_empty()
            return {}
        # A start that came to nothing, over a wrong recipe maybe, ties nobody.
        if not self._state.exists():
            return {}
        try:
            document: object = json.loads(self._recipe.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PipelineError(f"{self._recipe} cannot be read: {error}") from error
        if not isinstance(document, dict):
            raise PipelineError(f"{self._recipe} cannot be read: it is no JSON object")
        return cast("dict[str, Any]", document)

    def _require_empty(self) -> None:
        """A run would write over what it finds."""
        found = [name for name in self._others if (self._output / name).exists()]
        if found:
            raise PipelineError(
                f"{self._output} holds a checkpoint ({found[0]}) that no training run of this "
                "folder has written: train into another one"
            )
        for name in self._written:
            if (self._output / name).exists():
                raise PipelineError(
                    f"{self._output} holds {name}, which no training run of this folder has "
                    "written: train into another one"
                )

    def identify(self, document: dict[str, Any], *, writes: bool) -> None:
        """Fix what this folder's run is, or prove that it is the same as before.

        Args:
            document: Plain JSON data.
            writes: One process of the run does, the others look.

        Raises:
            PlanMismatchError: Naming what changed.
            PipelineError: If the folder cannot be read or written.
        """
        if there := self.identity():
            changed = [key for key, value in document.items() if there.get(key) != value]
            if changed:
                raise PlanMismatchError(
                    f"{self._output} holds another run: {', '.join(changed)} changed. "
                    "Train into another folder, or give back what it was"
                )
        elif writes:
            text = json.dumps(document, indent=1) + "\n"
            with writing(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
                # Other processes of the run may be looking: never half of it.
                temporary = self._recipe.with_suffix(".tmp")
                temporary.write_text(text, encoding="utf-8")
                temporary.replace(self._recipe)

    def load_state(self, device: torch.device) -> dict[str, Any] | None:
        """What `save_state` kept last; None if nothing yet.

        Raises:
            PipelineError: If it is damaged.
            PlanMismatchError: If it is of another version.
        """
        if not self._state.exists():
            return None
        try:
            state = torch.load(self._state, map_location=device, weights_only=True)
            version = state["version"]
        except Exception as error:  # a damaged archive raises whatever its bytes suggest
            raise PipelineError(f"{self._state} cannot be read, remove it: {error}") from error
        if version != _STATE_VERSION:
            raise PlanMismatchError(f"{self._state}: version {version}, not {_STATE_VERSION}")
        return state

    def save_state(self, state: dict[str, Any]) -> None:
        """Keep a state: a kill leaves the former one or this, never half of it.

        Raises:
            StorageError: If it cannot be written.
        """
        temporary = self._state.with_suffix(".tmp")
        with writing(self.path):
            try:
                torch.save({"version": _STATE_VERSION, **state}, temporary)
                temporary.replace(self._state)
            except (OSError, RuntimeError) as error:
                # A part of a state would keep a full disk full.
                with contextlib.suppress(OSError):
                    temporary.unlink()
                if isinstance(error, OSError):
                    raise
                # What torch's writer makes of a full disk.
                raise OSError(f"is the disk full? ({str(error).splitlines()[0]})") from error


def setting_now(device: torch.device, *, processes: int) -> dict[str, Any]:
    """What may change between a stop and its resume, and changes the last bits."""
    return {
        "device": device.type,
        "processes": processes,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }


def what_differs(before: dict[str, Any], now: dict[str, Any]) -> str:
    """A note for people; empty if nothing does."""
    changed = [f"{key} {before[key]}, now {now[key]}" for key in now if before[key] != now[key]]
    if not changed:
        return ""
    return f"note: {'; '.join(changed)}: the last bits of what follows may differ"
