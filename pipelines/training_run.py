"""A training run in one process of its world: stages in order, state on disk, resumed as left.

```
OUTPUT/
  config.json model.safetensors README.md   the averaged weights so far: a checkpoint that works
  training/
    recipe.json      what the run is; another recipe, start or corpus cannot go on from here
    state.pt         weights, averages, optimizer, router, position
    log.jsonl        a line per ``log_every`` steps
    samples/         original | rate 1 | rate 0.5 of held-out clips after each stage
```
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from infotok_core.checkpoint import save_directory
from infotok_core.code_space import CodeSpaceNetwork
from infotok_core.code_space_files import save_code_space
from infotok_core.network import Network
from infotok_core.objective import check_stage
from infotok_core.training import Progress, Trainer
from infotok_core.validation import psnr_by_rate
from infotok_core.world import World
from pipelines.config import RunConfig
from pipelines.errors import PipelineError, PlanMismatchError
from pipelines.sources import Source, open_source
from pipelines.training_clips import StageClips, held_out_clips
from pipelines.training_log import TrainingLog, progress_line
from pipelines.training_recipe import Recipe
from pipelines.training_samples import write_samples
from pipelines.training_start import first_network, perceptual_loss

__all__ = ["TrainingJob", "TrainingResult", "run_training"]

_RATES = (1.0, 0.75, 0.5, 0.25)
_STATE_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """What every process of a run is told; pickled to the workers of Ray Train.

    Attributes:
        input_url: Videos to train on.
        output: Local folder, or one that all nodes share; written by rank 0.
        recipe: What to do.
        config: Its source, storage and limits apply to the videos.
        init: Checkpoint to start from; None: new weights.
        base: Programs to train a compressor on instead; see `first_network`.
        validation: Videos to measure on after each stage; never trained on.
        validation_windows: At most so many windows of them, spread evenly.
        perceptual: File with the weights of the perceptual loss.
        card: Markdown for the top of the model card.
        save_every_s: Seconds between states.
        max_s: Stop cleanly after this long; the same command goes on.
    """

    input_url: str
    output: Path
    recipe: Recipe
    config: RunConfig
    init: str | None = None
    base: str | None = None
    validation: str | None = None
    validation_windows: int = 64
    perceptual: Path | None = None
    card: Path | None = None
    save_every_s: float = 60.0
    max_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """How it ended: ``finished`` is False if it was asked to stop before its end."""

    finished: bool
    document: dict[str, Any]


def run_training(
    job: TrainingJob,
    *,
    device: torch.device,
    say: Callable[[str], None],
    should_stop: Callable[[], bool],
) -> TrainingResult:
    """Train in this process, together with the others of `World.current`.

    Args:
        device: Of this process.
        say: Takes progress lines; only rank 0 speaks.
        should_stop: Asked at every log line.

    Raises:
        PipelineError: If the videos, the start or the state cannot be used.
        PlanMismatchError: If OUTPUT holds another run.
        TrainingError: If the loss is no longer a number.
    """
    if device.type == "cuda":
        # Fixed shapes: it pays to try which kernels are fastest.
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    run = _Run(job, device=device, say=say, should_stop=should_stop)
    try:
        return run.stages()
    finally:
        run.close()


class _Run:
    def __init__(
        self,
        job: TrainingJob,
        *,
        device: torch.device,
        say: Callable[[str], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self._job, self._device = job, device
        self._world = World.current()
        self._leads = self._world.rank == 0
        self._say = say if self._leads else lambda _: None
        self._started = time.monotonic()
        self._saved = self._started
        self._should_stop = lambda: should_stop() or self._is_late()
        self._folder = job.output / "training"
        self._recipe_path = self._folder / "recipe.json"
        self._perceptual = perceptual_loss(job.recipe, job.perceptual, device)
        self._clips = StageClips(
            lambda: self._source(job.input_url), job.recipe, job.config,
            device=device, world=self._world, kind=self._there().get("kind"),
        )  # fmt: skip
        self._held_out = (
            held_out_clips(
                self._source(job.validation), job.config,
                size=job.recipe.data.size, most=job.validation_windows,
            )
            if job.validation and self._leads
            else []
        )  # fmt: skip
        self._identify()
        self._log = TrainingLog(self._folder, writes=self._leads)
        self._results: list[dict[str, Any]] = []

    def close(self) -> None:
        self._clips.close()
        self._log.close()

    def stages(self) -> TrainingResult:
        """All stages that are not done yet."""
        state = self._load_state()
        job = self._job
        network = first_network(job.recipe, job.init, self._say, base=job.base).to(self._device)
        self._check_stages(network)
        first = 0
        if state is not None:
            first, self._results = state["stage"], state["results"]
        # A run that was killed before its first state has left lines, too.
        self._log.rewind(first, 0 if state is None else state["trainer"]["step"])
        for number, stage in enumerate(self._job.recipe.stages):
            if number < first:
                continue
            trainer = Trainer.start(network, stage, world=self._world, perceptual=self._perceptual)
            if state is not None:
                trainer.resume(state["trainer"])
                state = None
            if not self._stage(number, trainer):
                return TrainingResult(finished=False, document=self._document(trainer.averaged))
            network = trainer.averaged
        return TrainingResult(finished=True, document=self._document(network))

    def _check_stages(self, network: Network) -> None:
        """Better said now than when the stages before have taken their hours."""
        for number, stage in enumerate(self._job.recipe.stages):
            try:
                check_stage(stage, network)
            except ValueError as error:
                raise PipelineError(f"stage {number + 1}: {error}") from error

    def _stage(self, number: int, trainer: Trainer) -> bool:
        stage = trainer.stage
        self._say(f"stage {number + 1} of {len(self._job.recipe.stages)}: {stage}")
        resumed_at, started = trainer.step, time.monotonic()

        def report(progress: Progress) -> None:
            seconds = time.monotonic() - started
            speed = (progress.step - resumed_at) / max(seconds, 1e-9)
            self._log.write(number, progress, seconds=seconds)
            self._say(progress_line(stage, progress, speed))
            late = time.monotonic() - self._saved > self._job.save_every_s
            if progress.stopped or (late and progress.step < stage.steps):
                self._save(number, trainer)

        # A stage that was done before needs no clips any more.
        if trainer.step < stage.steps:
            clips = self._clips.open(number, start_step=trainer.step)
            if not trainer.run(clips, report=report, should_stop=self._should_stop):
                return False
        self._finish(number, trainer)
        return True

    def _finish(self, number: int, trainer: Trainer) -> None:
        if not self._leads:
            return
        if len(self._results) == number:
            result: dict[str, Any] = {"stage": number + 1, "steps": trainer.step}
            if self._held_out:
                result["psnr_db"] = self._validate(number, trainer)
            self._results.append(result)
            self._log.result(result)
            self._say(json.dumps(result))
        self._save(number, trainer)

    def _validate(self, number: int, trainer: Trainer) -> dict[str, float]:
        stage = trainer.stage
        means = psnr_by_rate(trainer.averaged, self._held_out, _RATES, stage)
        write_samples(
            self._folder / "samples", f"stage{number + 1}", trainer.averaged, self._held_out, stage
        )
        return {str(rate): round(mean, 3) for rate, mean in means.items()}

    def _save(self, number: int, trainer: Trainer) -> None:
        self._saved = time.monotonic()
        if not self._leads:
            return
        self._checkpoint(trainer.averaged)
        state = {
            "version": _STATE_VERSION,
            "stage": number,
            "results": self._results,
            "trainer": trainer.state(),
        }
        path = self._folder / "state.pt"
        temporary = path.with_suffix(".tmp")
        torch.save(state, temporary)
        # A kill leaves the former state or the new one, never half of it.
        temporary.replace(path)

    def _load_state(self) -> dict[str, Any] | None:
        path = self._folder / "state.pt"
        if not path.exists():
            return None
        try:
            state = torch.load(path, map_location=self._device, weights_only=True)
        except Exception as error:  # a damaged archive raises whatever its bytes suggest
            raise PipelineError(f"{path} cannot be read, remove it: {error}") from error
        if state["version"] != _STATE_VERSION:
            raise PlanMismatchError(f"{path}: version {state['version']}, not {_STATE_VERSION}")
        self._say(f"going on from stage {state['stage'] + 1}, step {state['trainer']['step']}")
        return state

    def _identify(self) -> None:
        """Fix what this folder's run is, or prove that it is the same as before."""
        document = {
            "recipe": self._job.recipe.document(),
            "init": self._job.init,
            "base": self._job.base,
            "corpus": self._clips.corpus_digest,
            "kind": self._clips.kind,
        }
        there = self._there()
        if not there:
            if self._leads:
                self._folder.mkdir(parents=True, exist_ok=True)
                # Other processes of the run may be looking: never half of it.
                temporary = self._recipe_path.with_suffix(".tmp")
                temporary.write_text(json.dumps(document, indent=1) + "\n")
                temporary.replace(self._recipe_path)
            return
        changed = [key for key, value in document.items() if there.get(key) != value]
        if changed:
            raise PlanMismatchError(
                f"{self._job.output} holds another run: {', '.join(changed)} changed. "
                "Train into another folder, or give back what it was"
            )

    def _there(self) -> dict[str, Any]:
        path = self._recipe_path
        return json.loads(path.read_text()) if path.exists() else {}

    def _checkpoint(self, averaged: Network) -> str:
        text = (
            self._job.card.read_text(encoding="utf-8")
            if self._job.card
            else "# A tokenizer trained with `infotok train`\n"
        )
        record = {"stages": self._results, "recipe": self._job.recipe.document()}
        text += f"\n## Record of the training run\n\n```json\n{json.dumps(record, indent=1)}\n```\n"
        if isinstance(averaged, CodeSpaceNetwork):
            return save_code_space(averaged, self._job.output, card=text)
        return save_directory(averaged, self._job.output, card=text)

    def _document(self, averaged: Network) -> dict[str, Any]:
        document: dict[str, Any] = {"stages": self._results}
        if self._leads:
            document["fingerprint"] = self._checkpoint(averaged)
        return document

    def _source(self, url: str) -> Source:
        return open_source(url, self._job.config.source, self._job.config.source_storage)

    def _is_late(self) -> bool:
        return self._job.max_s is not None and time.monotonic() - self._started > self._job.max_s
