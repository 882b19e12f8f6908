"""Real runs of the command line, and the tokenizers that are a danger to their actors."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.processes import Session, data_digests
from infotok_core.config import TokenizerConfig
from infotok_core.tokenizer import Analysis, Tokenizer
from pipelines.config import RunConfig
from pipelines.storage import Store
from pipelines.tokenizer_actor import load_tokenizer

REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 600.0
"""Ray takes 5 s to start on an idle machine, and minutes on one with 15 processes a core."""

SETTINGS = {
    "space.size": 32,
    "window.frames": 9,
    # Four shards of several files, so that pass two can be interrupted, too.
    "output.shard_source_bytes": 30_000,
    "output.file_bytes": 4_000,
    # More threads than free cores make it slower, and Ray would start fewer actors.
    "tokenizer.cpu_threads": 1,
    "runtime.actors": 1,
    # A kill by the test must not be held against a video.
    "limits.attempts": 10,
    "runtime.progress_s": 1,
}


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A corpus that a run has finished."""

    output: Path
    summary: dict[str, Any]
    digests: dict[str, str]


def run_command(source: Path, output: Path, checkpoint: Path, **settings: Any) -> list[str]:
    """``infotok run``; keywords are ``table__key=value``."""
    changed = {name.replace("__", "."): value for name, value in settings.items()}
    command = [sys.executable, "-m", "jobs", "run", str(source), str(output)]
    command += ["--format", "both", "--checkpoint", str(checkpoint)]
    for name, value in {**SETTINGS, **changed}.items():
        command += ["--set", f"{name}={value}"]
    return command


def start(command: list[str], log: Path, environment: Mapping[str, str] | None = None) -> Session:
    """The command in a session of its own."""
    return Session(command, log=log, folder=REPOSITORY, environment=environment)


def finish(session: Session, output: Path) -> Finished:
    """Wait for the end; it has to be a good one."""
    status = session.wait(PATIENCE_S)
    assert status == 0, session.log.read_text(errors="replace")[-3000:]
    return Finished(
        output=output,
        summary=json.loads(session.output.read_text()),
        digests=data_digests(output),
    )


def until(session: Session, condition: Callable[[], object]) -> None:
    """Wait for a moment in a run that is still under way then."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert session.running(), session.log.read_text(errors="replace")[-3000:]
        assert time.monotonic() < deadline, "the moment did not come"
        time.sleep(0.02)


def stored(output: Path, kind: str) -> list[str]:
    """Names of the objects of a kind (``units``, ``videos``, ``attempts``…) in the work folder."""
    folder = output / "_work" / kind
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if ".tmp-" not in name)


class HauntedTokenizer:
    """A real tokenizer to which white and black windows are fatal, each in its own way."""

    def __init__(
        self, tokenizer: Tokenizer, *, white: Callable[[], None], black: Callable[[], None]
    ) -> None:
        self._tokenizer = tokenizer
        self._white = white
        self._black = black
        self.fingerprint = tokenizer.fingerprint
        self.device = tokenizer.device

    @property
    def config(self) -> TokenizerConfig:
        return self._tokenizer.config

    def analyse(self, video_u8_BTHWC: torch.Tensor, /) -> Analysis:
        brightness = float(video_u8_BTHWC[:, 0].float().mean())
        if brightness > 250:
            self._white()
        if brightness < 5:
            self._black()
        return self._tokenizer.analyse(video_u8_BTHWC)


class FailingStore(Store):
    """Fails in a way that nobody has thought of."""

    def __reduce__(self) -> tuple[Any, ...]:
        return FailingStore, (self.url, self.config)

    def publish(self, path: str, data: bytes) -> None:
        raise ArithmeticError(f"{path} is too odd for {self.url}")


class DeadlyStore(Store):
    """Ends the process that writes the second shard, as a lack of memory would."""

    def __reduce__(self) -> tuple[Any, ...]:
        return DeadlyStore, (self.url, self.config)

    def publish(self, path: str, data: bytes) -> None:
        if "-000001-" in path:
            os._exit(1)
        super().publish(path, data)


def load_haunted(config: RunConfig, device: str) -> HauntedTokenizer:
    """White ends the process, as a bug in a kernel would; black raises."""
    return HauntedTokenizer(_load(config, device), white=lambda: os._exit(1), black=_fail)


def load_sleeping(config: RunConfig, device: str) -> HauntedTokenizer:
    """White takes for ever."""
    return HauntedTokenizer(_load(config, device), white=lambda: time.sleep(3600), black=_fail)


def load_deadly(config: RunConfig, device: str) -> HauntedTokenizer:
    """The actors of a machine on which the weights do not fit into memory."""
    os._exit(1)


def load_never(config: RunConfig, device: str) -> HauntedTokenizer:
    """The actors of a cluster that is not set up."""
    raise OSError(f"no weights for {config.tokenizer.checkpoint} on this machine's {device}")


def _fail() -> None:
    raise ArithmeticError("black is not a colour")


def _load(config: RunConfig, device: str) -> Tokenizer:
    tokenizer = load_tokenizer(config, device)
    assert isinstance(tokenizer, Tokenizer)
    return tokenizer
