"""The log of a training run: JSON lines, and TensorBoard where it is installed."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from infotok_core.recipe import Stage
from infotok_core.training import Progress

__all__ = ["TrainingLog", "progress_line", "stage_line"]

_ALWAYS = ("steps", "frames", "crop", "batch_size", "part", "router", "selection")


class TrainingLog:
    """Appends to ``log.jsonl``; a resumed run first drops what lies beyond its state.

    Args:
        folder: Made if need be.
        writes: False for all processes but one.
    """

    def __init__(self, folder: Path, *, writes: bool) -> None:
        self._path = folder / "log.jsonl"
        self._writes = writes
        self._board: Any = None
        if writes:
            folder.mkdir(parents=True, exist_ok=True)
            if importlib.util.find_spec("tensorboard") is not None:
                module = importlib.import_module("torch.utils.tensorboard")
                self._board = module.SummaryWriter(str(folder / "tensorboard"))

    def rewind(self, stage: int, step: int) -> None:
        """Drop the lines after a step of a stage (counted from 0)."""
        if not self._writes or not self._path.exists():
            return
        lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [line for line in lines if _position(line) <= (stage + 1, step)]
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        temporary.replace(self._path)

    def write(self, stage: int, progress: Progress, *, seconds: float) -> None:
        """A line of metrics."""
        if not self._writes:
            return
        metrics = {name: round(value, 6) for name, value in progress.metrics.items()}
        self._append(
            {
                "stage": stage + 1,
                "step": progress.step,
                **metrics,
                "learning_rate": progress.learning_rate,
                "seconds": round(seconds, 1),
            }
        )
        if self._board is not None:
            for name, value in progress.metrics.items():
                self._board.add_scalar(f"stage{stage + 1}/{name}", value, progress.step)

    def result(self, result: dict[str, Any]) -> None:
        """A line at the end of a stage."""
        if self._writes:
            self._append({**result, "step": result["steps"]})

    def close(self) -> None:
        """Flush what others read."""
        if self._board is not None:
            self._board.close()

    def _append(self, document: dict[str, Any]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(document) + "\n")


def _position(line: str) -> tuple[int, int]:
    try:
        document = json.loads(line)
        return document["stage"], document["step"]
    except (ValueError, KeyError, TypeError):
        # The last line of a run that was killed while it wrote.
        return (1 << 30, 0)


def stage_line(stage: Stage) -> str:
    """What a stage does, for people: the main choices, and the others that are no defaults."""
    shown = [
        f"{field.name} {_plain(getattr(stage, field.name))}"
        for field in fields(stage)
        if field.name in _ALWAYS or getattr(stage, field.name) != field.default
    ]
    return ", ".join(shown)


def _plain(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def progress_line(
    stage: Stage, step: int, speed: float, metrics: Mapping[str, float] | None = None
) -> str:
    """Where a stage is, for people; ``speed`` in steps per second, metrics where there are some."""
    left_min = (stage.steps - step) / max(speed, 1e-9) / 60
    parts = [f"step {step}/{stage.steps}"]
    if metrics is not None:
        parts += [f"loss {metrics['loss']:.4f}", f"L1 {metrics['l1']:.4f}"]
        parts += [f"rate {metrics['rate']:.2f}"]
    parts += [f"{speed:.1f} steps/s" if speed >= 1 else f"{1 / max(speed, 1e-9):.1f} s a step"]
    return ", ".join([*parts, f"{left_min:.1f} min left"])
