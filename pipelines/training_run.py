"""A training run in one process of its world: stages in order, state on disk, resumed as left.

```
OUTPUT/
  config.json model.safetensors README.md   the averaged weights so far: a checkpoint that works
  training/
    recipe.json      what the run is; another recipe, start or corpus cannot go on from here
    state.pt         weights, averages, optimizer, router, position
    log.jsonl        a line per ``log_every`` steps of a stage
    samples/         original | rate 1 | rate 0.5 of held-out clips after each stage
```
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infotok_core.network import Network
from infotok_core.objective import check_stage
from infotok_core.training import Progress, Trainer
from infotok_core.validation import psnr_by_rate
from infotok_core.world import World
from pipelines.config import RunConfig
from pipelines.errors import InterruptedRunError, PipelineError
from pipelines.sources import Source, open_source
from pipelines.training_checkpoint import write_checkpoint
from pipelines.training_clips import StageClips, held_out_clips
from pipelines.training_folder import TrainingFolder, setting_now, what_differs
from pipelines.training_log import TrainingLog, progress_line, stage_line
from pipelines.training_recipe import Recipe
from pipelines.training_samples import write_samples
from pipelines.training_start import first_network, perceptual_loss
from pipelines.voice import Voice

__all__ = ["TrainingJob", "TrainingResult", "run_training"]

_RATES = (1.0, 0.75, 0.5, 0.25)


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
        should_stop: Asked as `Trainer.run` says.

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
        self._say = Voice(say if self._leads else lambda _: None, time.monotonic)
        self._started = time.monotonic()
        self._saved = self._started
        self._is_stopped = should_stop
        self._should_stop = lambda: should_stop() or self._is_late()
        self._folder = TrainingFolder(job.output, job.base)
        kind = self._folder.identity().get("kind")
        self._perceptual = perceptual_loss(job.recipe, job.perceptual, device)
        self._clips = StageClips(
            lambda: self._source(job.input_url), job.recipe, job.config,
            device=device, world=self._world, kind=kind, say=self._say,
            should_stop=should_stop,
        )  # fmt: skip
        self._identify()
        self._held_out = (
            held_out_clips(
                self._source(job.validation), job.config,
                size=job.recipe.data.size, most=job.validation_windows,
            )
            if job.validation and self._leads
            else []
        )  # fmt: skip
        self._log = TrainingLog(self._folder.path, writes=self._leads)
        self._results: list[dict[str, Any]] = []

    def close(self) -> None:
        self._clips.close()
        self._log.close()

    def stages(self) -> TrainingResult:
        """All stages that are not done yet."""
        state = self._folder.load_state(self._device)
        job = self._job
        network = first_network(job.recipe, job.init, self._say, base=job.base).to(self._device)
        self._check_stages(network)
        first = 0
        if state is not None:
            first, self._results = state["stage"], state["results"]
            self._say(f"going on from stage {first + 1}, step {state['trainer']['step']}")
            now = setting_now(self._device, processes=self._world.size)
            if note := what_differs(state["setting"], now):
                self._say(note)
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
        if self._held_out and any(stage.part != "base" for stage in self._job.recipe.stages):
            frames, height, width, _ = self._held_out[0].shape
            try:
                network.shape.grid(frames, height, width)
            except ValueError as error:
                raise PipelineError(f"--validation: {error}") from error

    def _stage(self, number: int, trainer: Trainer) -> bool:
        stage = trainer.stage
        self._say(f"stage {number + 1} of {len(self._job.recipe.stages)}: {stage_line(stage)}")
        resumed_at = trainer.step
        started = time.monotonic()

        def speed() -> float:
            return (trainer.step - resumed_at) / max(time.monotonic() - started, 1e-9)

        def report(progress: Progress) -> None:
            self._log.write(number, progress, seconds=time.monotonic() - started)
            self._say(progress_line(stage, progress.step, speed(), progress.metrics))

        def should_save() -> bool:
            self._say.after_silence(lambda: progress_line(stage, trainer.step, speed()))
            return time.monotonic() - self._saved > self._job.save_every_s

        # A stage that was done before needs no clips any more.
        if trainer.step < stage.steps:
            clips = self._clips.open(number, start_step=trainer.step)
            # Decoding a corpus into memory is no part of a step.
            started = time.monotonic()
            self._say.listen()
            if not trainer.run(
                clips, report=report, should_stop=self._should_stop, should_save=should_save,
                save=lambda: self._save(number, trainer),
            ):  # fmt: skip
                return False
        self._finish(number, trainer)
        return True

    def _finish(self, number: int, trainer: Trainer) -> None:
        if not self._leads:
            return
        if len(self._results) == number:
            result: dict[str, Any] = {"stage": number + 1, "steps": trainer.step}
            if self._held_out:
                # Measuring takes minutes on a CPU: a stop must not cost the training before it.
                self._save(number, trainer)
                result["psnr_db"] = self._validate(number, trainer)
            self._results.append(result)
            self._log.result(result)
            self._say(json.dumps(result))
        self._save(number, trainer)

    def _validate(self, number: int, trainer: Trainer) -> dict[str, float]:
        stage = trainer.stage
        means = psnr_by_rate(trainer.averaged, self._watched(self._held_out), _RATES, stage)
        write_samples(
            self._folder.path / "samples",
            f"stage{number + 1}",
            trainer.averaged,
            self._held_out,
            stage,
        )
        return {str(rate): round(mean, 3) for rate, mean in means.items()}

    def _watched(self, clips: Sequence[Tensor]) -> Iterator[Tensor]:
        """The clips, one by one, with a word now and then, until the run is stopped."""
        for place, clip in enumerate(clips):
            if self._is_stopped():
                raise InterruptedRunError("stopped; the same command goes on from here")
            told = f"measured {place} of {len(clips)} held-out windows"
            self._say.after_silence(lambda told=told: told)
            yield clip

    def _save(self, number: int, trainer: Trainer) -> None:
        self._saved = time.monotonic()
        if not self._leads:
            return
        self._checkpoint(trainer.averaged)
        self._folder.save_state(
            {
                "stage": number,
                "results": self._results,
                "trainer": trainer.state(),
                "setting": setting_now(self._device, processes=self._world.size),
            }
        )

    def _identify(self) -> None:
        """Fix what this folder's run is, or prove that it is the same as before."""
        config = self._job.config
        document = {
            "recipe": self._job.recipe.document(),
            "init": self._job.init,
            "base": self._job.base,
            "corpus": self._clips.corpus_digest,
            "kind": self._clips.kind,
            "fps": config.window.fps,
            "limits": config.analysis_identity()["limits"],
        }
        self._folder.identify(document, writes=self._leads)

    def _checkpoint(self, averaged: Network) -> str:
        record = {"stages": self._results, "recipe": self._job.recipe.document()}
        return write_checkpoint(averaged, self._job.output, card=self._job.card, record=record)

    def _document(self, averaged: Network) -> dict[str, Any]:
        document: dict[str, Any] = {"stages": self._results}
        if self._leads:
            document["fingerprint"] = self._checkpoint(averaged)
        return document

    def _source(self, url: str) -> Source:
        config = self._job.config
        # What a run writes is none of its videos.
        outputs = [str(self._job.output)]
        return open_source(url, config.source, config.source_storage, exclude_roots=outputs)

    def _is_late(self) -> bool:
        return self._job.max_s is not None and time.monotonic() - self._started > self._job.max_s
