"""A compressor of ours on somebody else's programs: starts as they are, trains, stores, exports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors
import torch
from programs import write_fsq_programs, write_programs
from torch import Tensor
from training_helpers import Ramps, small_stage

from infotok_core.code_space import CodeSpaceNetwork, CodeSpaceTokenizer
from infotok_core.code_space_files import save_code_space
from infotok_core.config import TransformerConfig
from infotok_core.errors import CheckpointError
from infotok_core.export import export_programs
from infotok_core.network import Network
from infotok_core.objective import Objective, check_stage
from infotok_core.opening import identify_tokenizer, open_tokenizer
from infotok_core.programs import ProgramTokenizer
from infotok_core.training import Trainer

INNER = TransformerConfig(
    hidden=8, mlp_hidden=16, encoder_layers=1, decoder_layers=1, heads=2, init_std=0.3,
    double_projection=False, mask_embedding=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("bases")


@pytest.fixture(scope="module")
def base(folders, toy_config) -> Path:
    return write_fsq_programs(folders / "base", toy_config)


@pytest.fixture(scope="module")
def closed(folders, toy_config) -> Path:
    return write_fsq_programs(folders / "closed", toy_config, frozen=True)


def network_on(folder: Path) -> CodeSpaceNetwork:
    return CodeSpaceNetwork(ProgramTokenizer.load(folder), INNER)


def video_of(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (2, 5, 16, 16, 3), dtype=torch.uint8, generator=generator)


def saved(network: CodeSpaceNetwork, folder: Path) -> CodeSpaceTokenizer:
    identity = save_code_space(network, folder, card="# Mine\n")
    tokenizer = open_tokenizer(folder)
    assert isinstance(tokenizer, CodeSpaceTokenizer)
    assert tokenizer.fingerprint == identity == identify_tokenizer(folder).fingerprint
    return tokenizer


def test_weights_that_cannot_be_written_leave_the_former_ones(base: Path, tmp_path: Path):
    saved(network_on(base), tmp_path)
    before = (tmp_path / "compressor.safetensors").read_bytes()
    (tmp_path / "compressor.safetensors.tmp").mkdir()
    with pytest.raises((OSError, safetensors.SafetensorError)):
        save_code_space(network_on(base), tmp_path, card="")
    assert (tmp_path / "compressor.safetensors").read_bytes() == before


def test_it_starts_as_the_base_itself(base: Path, tmp_path: Path):
    alone, ours = open_tokenizer(base), saved(network_on(base), tmp_path / "ours")
    wanted, found = (tokenizer.analyse(video_of(1)) for tokenizer in (alone, ours))
    assert torch.equal(wanted.codes_Bthw, found.codes_Bthw)
    assert torch.equal(wanted.information_Bthw, found.information_Bthw)
    keep = torch.rand(wanted.codes_Bthw.shape) < 0.5
    shown = [tokenizer.reconstruct(wanted.codes_Bthw, keep) for tokenizer in (alone, ours)]
    assert torch.equal(*shown)
    assert ours.fingerprint != alone.fingerprint
    assert identify_tokenizer(tmp_path / "ours").shape.max_grid == (49, 96, 96)


@pytest.mark.parametrize("kind", ["pixels", "codes"])
def test_training_brings_the_loss_down_and_leaves_the_base_alone(
    kind: str, base: Path, closed: Path, tmp_path: Path
):
    folder = base if kind == "pixels" else closed
    network = network_on(folder)
    assert network.has_gradient == (kind == "pixels")
    weights = {"pixels": {}, "codes": {"l1_weight": 0.0, "code_weight": 1.0}}[kind]
    stage = small_stage(
        part="compressor", steps=12, log_every=4, router="static", rates=(0.5,),
        learning_rate=5e-3, **weights,
    )  # fmt: skip
    before = [network.base.decoder_program.state_dict(), (folder / "decoder.jit").read_bytes()]
    trainer, losses = Trainer.start(network, stage), []
    trainer.run(Ramps(stage, still=True), report=lambda p: losses.append(p.metrics["loss"]))
    assert losses[-1] < losses[0]
    after = network.base.decoder_program.state_dict()
    assert all(torch.equal(values, after[name]) for name, values in before[0].items())
    assert {name.split(".")[0] for name in trainer.state()["network"]} == {
        "temporal_embed", "vit_conv", "post_vit_conv", "vit_encoder", "vit_decoder",
        "dropped_embed",
    }  # fmt: skip
    saved(trainer.averaged, tmp_path / "ours")
    assert (tmp_path / "ours" / "decoder.jit").read_bytes() == before[1]


def test_a_trained_one_can_be_used_and_exported(base: Path, tmp_path: Path):
    network = network_on(base)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    tokenizer = saved(network, tmp_path / "ours")
    analysis = tokenizer.analyse(video_of(2))
    assert not torch.equal(
        analysis.codes_Bthw, open_tokenizer(base).analyse(video_of(2)).codes_Bthw
    )
    keep = torch.rand(analysis.codes_Bthw.shape) < 0.5
    shown = tokenizer.reconstruct(analysis.codes_Bthw, keep)
    other = analysis.codes_Bthw.where(keep, 5)
    assert torch.equal(tokenizer.reconstruct(other, keep), shown)
    report = export_programs(tokenizer, tmp_path / "programs")
    assert report.compared_tokens > 0
    exported = open_tokenizer(tmp_path / "programs")
    assert isinstance(exported, ProgramTokenizer)
    again = exported.analyse(video_of(2))
    assert torch.equal(again.codes_Bthw, analysis.codes_Bthw)
    torch.testing.assert_close(again.information_Bthw, analysis.information_Bthw)
    rounding = exported.reconstruct(again.codes_Bthw, keep).int() - shown.int()
    assert rounding.abs().max() <= 1
    with pytest.raises(ValueError, match="exported as jit alone"):
        export_programs(tokenizer, tmp_path / "pt2", kind="pt2")


def test_what_cannot_be_trained_so_is_said_before(base: Path, closed: Path, toy_network: Network):
    network = network_on(base)
    with pytest.raises(ValueError, match="a base of programs stays as it is: part = compressor"):
        check_stage(small_stage(part="all"), network)
    with pytest.raises(ValueError, match="has no gradient: set l1_weight = 0"):
        Objective(network_on(closed), small_stage(part="compressor"))
    with pytest.raises(ValueError, match="code_weight is for a base of programs"):
        check_stage(small_stage(code_weight=1.0), toy_network)


def test_a_base_without_known_levels_is_refused(tmp_path: Path):
    blocks = ProgramTokenizer.load(write_programs(tmp_path))
    with pytest.raises(ValueError, match=r"needs the levels of an FSQ, and tokenizer\.json names"):
        CodeSpaceNetwork(blocks, INNER)


def test_files_that_do_not_belong_together_are_noticed(base: Path, tmp_path: Path):
    saved(network_on(base), tmp_path / "ours")
    (tmp_path / "ours" / "tokenizer.json").write_text(json.dumps({"fill_index": 1}))
    for act in (open_tokenizer, identify_tokenizer):
        with pytest.raises(CheckpointError, match=r"fingerprint .* differs from comp"):
            act(tmp_path / "ours")
    (tmp_path / "ours" / "compressor.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"compressor\.json: is not a compressor's"):
        open_tokenizer(tmp_path / "ours")
