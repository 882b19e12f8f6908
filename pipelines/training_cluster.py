"""A training run on the GPUs of a Ray cluster, through Ray Train's TorchTrainer."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Generator
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import ray
import ray.train
import ray.train.torch
import torch

from infotok_core.training import TrainingError
from pipelines.errors import InterruptedRunError, PipelineError
from pipelines.store_options import is_local
from pipelines.training_run import TrainingJob, TrainingResult, run_training
from pipelines.training_workers import Workers

__all__ = ["train_on_cluster"]

_CLEANER = "PlacementGroupCleanerCallback"
_RESULT = "training/result.json"
_STOP = "training/stop"
_GLANCE_S = 0.5
_ANSWER_S = 5.0
_ENDED = "stopped, and the training processes with it; the same command goes on from the last state"


class _LocalTrainer(ray.train.torch.TorchTrainer):
    """On a Ray of our own, which ends with us."""

    def _create_default_callbacks(self) -> list[Any]:
        # It tidies up after a dead driver, and without a dashboard complains every second.
        callbacks: list[Any] = super()._create_default_callbacks()
        return [item for item in callbacks if type(item).__name__ != _CLEANER]


def train_on_cluster(
    job: TrainingJob,
    *,
    device: Literal["cpu", "cuda"],
    workers: int,
    stop: threading.Event,
    own: bool = False,
) -> TrainingResult:
    """Run ``job`` in ``workers`` processes, one GPU each, and wait for them.

    Ray must be connected. OUTPUT must be a folder that all processes and the caller see: on one
    node any, on several a shared one. After a failure the same command goes on from the last
    state; Ray Train is not asked to retry.

    Args:
        stop: Once set, the processes stop cleanly, as `Trainer.run` says.
        own: Whether this Ray was started for this run alone, so that no node will join it.

    Raises:
        InterruptedRunError: They ended with ``stop`` instead: the signal went to them, too.
        PipelineError: The one a process failed with, else one with the last line of its error; or
            this machine has too few places.
    """
    if own:
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        _require_places(workers, device)
    job = replace(job, output=job.output.absolute())
    for name in (_RESULT, _STOP):
        (job.output / name).unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as scratch, _passed_on(stop, job.output / _STOP):
        trainer = _trainer(job, device, workers, own=own, scratch=scratch)
        try:
            _fit(trainer, stop)
        except InterruptedRunError:
            raise
        except Exception as error:  # whatever a worker raised, wrapped by Ray
            raise _said_here(error, stopped=stop.is_set()) from error
    document = json.loads((job.output / _RESULT).read_text())
    return TrainingResult(finished=document.pop("finished"), document=document)


def _trainer(
    job: TrainingJob, device: Literal["cpu", "cuda"], workers: int, *, own: bool, scratch: str
) -> ray.train.torch.TorchTrainer:
    return (_LocalTrainer if own else ray.train.torch.TorchTrainer)(
        _worker,
        train_loop_config={"job": job, "device": device, "folder": str(Path.cwd())},
        scaling_config=ray.train.ScalingConfig(num_workers=workers, use_gpu=device == "cuda"),
        # Its own records, and little said about them; ours lie in OUTPUT.
        run_config=ray.train.RunConfig(
            storage_path=scratch,
            name="infotok-train",
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
        ),
    )


def _said_here(error: Exception, *, stopped: bool) -> BaseException:
    """What to raise for an error of Ray Train: the worker's own, if it is one of ours."""
    for cause in getattr(error, "worker_failures", {}).values():
        if isinstance(_origin(cause), PipelineError):
            return _origin(cause)
    if stopped:
        return InterruptedRunError(_ENDED)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return PipelineError(f"training failed: {lines[-1] if lines else error!r}")


def _require_places(workers: int, device: Literal["cpu", "cuda"]) -> None:
    """Ray Train would wait for more machines, for ever."""
    kind = "GPU" if device == "cuda" else "CPU"
    found = int(ray.cluster_resources().get(kind, 0))
    if found < workers:
        raise PipelineError(
            f"--workers {workers} takes as many {kind}s, and there are {found} here; on several "
            "machines start a Ray cluster and name it in RAY_ADDRESS"
        )


def _fit(trainer: ray.train.torch.TorchTrainer, stop: threading.Event) -> None:
    """Train in another thread: in the main one Ray would take Ctrl-C for itself.

    A signal to the whole process group ends a local Ray as well, and its caller would wait for a
    minute for it to come back.
    """
    gcs_address = ray.get_runtime_context().gcs_address
    thread = Workers(1, name="fit")
    fitting = thread.submit(trainer.fit)
    try:
        while not wait([fitting], timeout=_GLANCE_S).done:
            if stop.is_set() and not _answers(gcs_address):
                raise InterruptedRunError(_ENDED)
        fitting.result()
    finally:
        thread.stop()


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
    except OSError:
        return False
    return True


def _origin(error: BaseException) -> BaseException:
    """What a process raised, without the wrapper that Ray puts around it."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BaseException) else error


@contextlib.contextmanager
def _passed_on(stop: threading.Event, path: Path) -> Generator[None]:
    """Make a file when ``stop`` is set: an event does not reach other processes."""
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            if stop.wait(_GLANCE_S):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
                return

    thread = threading.Thread(target=watch, name="stop", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        path.unlink(missing_ok=True)


def _worker(config: dict[str, Any]) -> None:
    job: TrainingJob = config["job"]
    # Paths are those of the command line; Ray Train starts each process in a folder of its own.
    try:
        os.chdir(config["folder"])
    except OSError as error:
        given = (job.input_url, job.validation, job.base, job.perceptual)
        there = [str(path) for path in given if path is not None and _is_relative(str(path))]
        if there:
            raise PipelineError(
                f"{socket.gethostname()} does not see {config['folder']}, where {', '.join(there)} "
                "would be: give absolute paths that all machines see"
            ) from error
    device = ray.train.torch.get_device() if config["device"] == "cuda" else torch.device("cpu")
    assert isinstance(device, torch.device)
    try:
        result = run_training(job, device=device, say=_say, should_stop=(job.output / _STOP).exists)
    except TrainingError as error:
        raise PipelineError(str(error)) from error
    if ray.train.get_context().get_world_rank() == 0:
        text = json.dumps({"finished": result.finished, **result.document})
        Path(job.output / _RESULT).write_text(text + "\n")


def _is_relative(path: str) -> bool:
    return is_local(path) and not Path(path).is_absolute()


def _say(line: str) -> None:
    # Shown by the driver on its own stderr; stdout is for results.
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
