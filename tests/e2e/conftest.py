"""One corpus of small videos, a tokenizer small enough for two cores, and one run in peace."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# `runs` is imported by name, here and by Ray's workers; `benchmarks` from the root.
for folder in (Path(__file__).parent, Path(__file__).parents[2]):
    sys.path.insert(0, str(folder))

from networks import toy_config  # noqa: E402
from runs import REPOSITORY, Finished, finish, run_command, start  # noqa: E402
from videos import numbered_frame, write_video  # noqa: E402

from infotok_core.checkpoint import save_directory  # noqa: E402
from infotok_core.network import build_network  # noqa: E402
from jobs.engine import engine  # noqa: E402
from pipelines.observe import RunControl  # noqa: E402


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, 10 ms a window."""
    folder = tmp_path_factory.mktemp("checkpoint")
    network = build_network(toy_config(decoder_layers=1), seed=1).eval()
    save_directory(network, folder, card="# Random weights\n")
    return folder


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten videos of up to 20 windows of 9 frames, two units at most, and one that is broken."""
    folder = tmp_path_factory.mktemp("source")
    for index in range(10):
        first, count = 7 * index, (180, 160, 20, 150, 5)[index % 5] + index
        frames = [numbered_frame((first + number) % 256) for number in range(count)]
        write_video(folder / f"{index:02d}.mp4", frames)
    (folder / "broken.mp4").write_bytes((folder / "00.mp4").read_bytes()[:2000])
    return folder


@pytest.fixture(scope="session")
def undisturbed(
    source: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    """What one run makes of `source` when nobody is in its way."""
    folder = tmp_path_factory.mktemp("undisturbed")
    output = folder / "corpus"
    with start(run_command(source, output, checkpoint), folder / "run.log") as session:
        return finish(session, output)


@pytest.fixture(scope="module")
def control() -> Iterator[RunControl]:
    """A Ray in this process, for the tests of a file."""
    with engine() as control:
        yield control


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY
