"""A training run on the GPUs of a Ray cluster, through Ray Train's TorchTrainer."""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import ray
import ray.train
import ray.train.torch
import torch

from infotok_core.training import TrainingError
from pipelines.errors import PipelineError
from pipelines.training_run import TrainingJob, TrainingResult, run_training

__all__ = ["train_on_cluster"]

log = logging.getLogger(__name__)

_RESULT = "training/result.json"


def train_on_cluster(
    job: TrainingJob, *, device: Literal["cpu", "cuda"], workers: int
) -> TrainingResult:
    """Run ``job`` in ``workers`` processes, one GPU each, and wait for them.

    Connects to Ray as the other commands do if nobody has yet. OUTPUT must be a folder that the
    process of rank 0 and the caller both see: on one node any, on several a shared one. After a
    failure the same command goes on from the last state; Ray Train is not asked to retry.

    Raises:
        PipelineError: If a process failed; the message is its last line.
    """
    job = replace(job, output=job.output.absolute())
    (job.output / _RESULT).unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = ray.train.torch.TorchTrainer(
            _worker,
            train_loop_config={"job": job, "device": device},
            scaling_config=ray.train.ScalingConfig(num_workers=workers, use_gpu=device == "cuda"),
            # Its own records; ours lie in OUTPUT.
            run_config=ray.train.RunConfig(storage_path=scratch, name="infotok-train"),
        )
        try:
            trainer.fit()
        except Exception as error:  # whatever a worker raised, wrapped by Ray
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise PipelineError(f"training failed: {lines[-1] if lines else error!r}") from error
    document = json.loads((job.output / _RESULT).read_text())
    return TrainingResult(finished=document.pop("finished"), document=document)


def _worker(config: dict[str, Any]) -> None:
    job: TrainingJob = config["job"]
    device = ray.train.torch.get_device() if config["device"] == "cuda" else torch.device("cpu")
    assert isinstance(device, torch.device)
    try:
        result = run_training(job, device=device, say=_say, should_stop=lambda: False)
    except TrainingError as error:
        raise PipelineError(str(error)) from error
    if ray.train.get_context().get_world_rank() == 0:
        text = json.dumps({"finished": result.finished, **result.document})
        Path(job.output / _RESULT).write_text(text + "\n")


def _say(line: str) -> None:
    # A worker's stderr is shown by the driver.
    print(line, flush=True)  # noqa: T201
