"""What a training run keeps of itself, and how it meets what it finds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipelines.errors import PipelineError, PlanMismatchError, StorageError
from pipelines.training_folder import TrainingFolder

CPU = torch.device("cpu")
RUN = {"recipe": {"steps": 3}, "kind": "memory"}


@pytest.fixture
def folder(tmp_path: Path) -> TrainingFolder:
    """Of a run that has a state."""
    folder = TrainingFolder(tmp_path)
    folder.identify(RUN, writes=True)
    folder.save_state({"stage": 1})
    return folder


def test_a_run_finds_itself_and_its_state_again(folder: TrainingFolder, tmp_path: Path):
    again = TrainingFolder(tmp_path)
    again.identify(RUN, writes=False)
    assert again.identity()["kind"] == "memory"
    assert again.load_state(CPU) == {"version": 2, "stage": 1}


def test_another_run_is_refused_by_the_name_of_what_changed(folder: TrainingFolder):
    with pytest.raises(PlanMismatchError, match="another run: kind changed"):
        folder.identify(RUN | {"kind": "stream"}, writes=False)


def test_a_start_that_came_to_nothing_ties_nobody(tmp_path: Path):
    folder = TrainingFolder(tmp_path)
    folder.identify(RUN, writes=True)
    assert folder.identity() == {}
    assert folder.load_state(CPU) is None
    folder.identify(RUN | {"kind": "stream"}, writes=True)
    folder.save_state({})
    assert folder.identity()["kind"] == "stream"


@pytest.mark.parametrize("name", ["model.safetensors", "encoder.jit"])
def test_a_checkpoint_of_somebody_else_is_not_written_over(tmp_path: Path, name: str):
    (tmp_path / name).touch()
    with pytest.raises(PipelineError, match=f"holds a checkpoint .{name}"):
        TrainingFolder(tmp_path).identity()


@pytest.mark.parametrize("name", ["README.md", "config.json", "meta/manifest.parquet"])
def test_what_a_run_would_write_over_or_mix_with_is_not_touched(tmp_path: Path, name: str):
    """A corpus of tokens has a README.md, too."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(PipelineError, match=f"holds {name}"):
        TrainingFolder(tmp_path).identity()


def test_a_compressor_may_be_put_beside_the_programs_it_is_for(tmp_path: Path):
    (tmp_path / "encoder.jit").touch()
    assert TrainingFolder(tmp_path, str(tmp_path)).identity() == {}
    (tmp_path / "compressor.safetensors").touch()
    with pytest.raises(PipelineError, match=r"holds a checkpoint .compressor"):
        TrainingFolder(tmp_path, str(tmp_path)).identity()


@pytest.mark.parametrize("text", ['{"recipe": {"st', "[1]", "\udcff"])
def test_a_damaged_identity_is_named(folder: TrainingFolder, text: str):
    (folder.path / "recipe.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(PipelineError, match=r"recipe\.json cannot be read"):
        folder.identity()


@pytest.mark.parametrize("document", [None, [3], {"stage": 1}])
def test_a_damaged_state_is_named(folder: TrainingFolder, document: object):
    path = folder.path / "state.pt"
    if document is None:
        path.write_bytes(path.read_bytes()[:100])
    else:
        torch.save(document, path)
    with pytest.raises(PipelineError, match=r"state\.pt cannot be read, remove it"):
        folder.load_state(CPU)


def test_a_state_of_another_version_is_named(folder: TrainingFolder):
    folder.save_state({"version": 99})
    with pytest.raises(PlanMismatchError, match=r"state\.pt: version 99, not 2"):
        folder.load_state(CPU)


def test_what_cannot_be_written_is_a_sentence_and_leaves_the_former_state(
    folder: TrainingFolder, tmp_path: Path
):
    (folder.path / "state.tmp").mkdir()
    with pytest.raises(StorageError, match="training cannot be written"):
        folder.save_state({"stage": 2})
    assert (folder.load_state(CPU) or {})["stage"] == 1
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written"):
        TrainingFolder(tmp_path / "file").identify(RUN, writes=True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is always full")
def test_a_full_disk_is_a_sentence(folder: TrainingFolder):
    (folder.path / "state.tmp").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="training cannot be written"):
        folder.save_state({"weights": torch.zeros(100_000)})
    assert (folder.load_state(CPU) or {})["stage"] == 1
