"""What a training run starts from: every layout, at small size, and what is said of a wrong one."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import pytest
import torch
from networks import toy_config
from torch import Tensor, nn

from infotok_core.checkpoint import Checkpoint, fingerprint, save_directory
from infotok_core.config import TokenizerConfig
from infotok_core.export import export_programs
from infotok_core.network import Network, build_network
from infotok_core.recipe import Stage
from infotok_core.tokenizer import Tokenizer
from infotok_core.warm_start import is_base_name
from pipelines.errors import PipelineError
from pipelines.training_recipe import DataOptions, Recipe
from pipelines.training_start import first_network

CONFIG = toy_config()
INNER = CONFIG.transformer
assert INNER is not None
VIDEO = torch.rand(1, 3, 5, 16, 24, generator=torch.Generator().manual_seed(2)) * 2 - 1


def started(init: Path | str, config: TokenizerConfig | None = CONFIG) -> tuple[Network, str]:
    said: list[str] = []
    recipe = Recipe(network=config, data=DataOptions(), stages=(Stage(steps=1),))
    return first_network(recipe, str(init), said.append), said[0]


@pytest.fixture
def trained() -> Network:
    torch.set_num_threads(1)
    return build_network(CONFIG, seed=5).eval()


def published_layout(network: Network) -> dict[str, Tensor]:
    """As the published training run stores it: prefix, bfloat16, buffers beside the parameters."""
    tensors = {f"network.{k}": v.detach().bfloat16() for k, v in network.named_parameters()}
    return tensors | {
        "network.quantizer._levels": torch.tensor([8, 8, 8, 5, 5, 5]),
        "network.ema_loss": torch.tensor([0.1]),
        "ema.network-encoder-conv_in-0-conv3d-weight": torch.zeros(1),
    }


def same_parameters(network: Network, other: Network, *, base_alone: bool = False) -> bool:
    own = dict(network.named_parameters())
    pairs = [(own[k], v) for k, v in other.named_parameters() if is_base_name(k) or not base_alone]
    return all(torch.equal(a, b) for a, b in pairs)


@torch.no_grad()
def test_a_published_file_is_taken_whole_and_may_grow(tmp_path: Path, trained: Network):
    torch.save({"model": published_layout(trained), "iteration": 7}, tmp_path / "infotok.pt")
    network, said = started(tmp_path / "infotok.pt")
    assert said.endswith("infotok.pt: the whole of it")
    assert same_parameters(network, trained.bfloat16().float())
    inner = dataclasses.replace(INNER, decoder_layers=3, mask_embedding=True)
    deeper = dataclasses.replace(CONFIG, transformer=inner, latent_router=8)
    larger, said = started(tmp_path / "infotok.pt", deeper)
    assert "made deeper" in said
    assert larger.config == deeper
    assert torch.equal(larger(VIDEO), network(VIDEO))
    assert all(p.requires_grad for p in larger.parameters())


class Part(nn.Module):
    """Half of a Cosmos autoencoder, or all of it: parameters under their names."""

    def __init__(self, network: Network, parts: tuple[str, ...]) -> None:
        super().__init__()
        for part in parts:
            self.add_module(part, getattr(network, part))

    def forward(self, x: Tensor) -> Tensor:
        return x


def trace(module: nn.Module, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(module, torch.zeros(1)).save(str(path))


@torch.no_grad()
def test_a_cosmos_base_gets_transformers_that_change_nothing(tmp_path: Path):
    base = build_network(dataclasses.replace(CONFIG, transformer=None), seed=9).eval()
    encoding, decoding = ("encoder", "quant_conv"), ("post_quant_conv", "decoder")
    torch.save({k: v.detach() for k, v in base.named_parameters()}, tmp_path / "base.pt")
    trace(Part(base, encoding + decoding), tmp_path / "whole" / "autoencoder.jit")
    trace(Part(base, encoding), tmp_path / "pair" / "encoder.jit")
    trace(Part(base, decoding), tmp_path / "pair" / "decoder.jit")
    for source in ("base.pt", "whole", "pair", "whole/autoencoder.jit"):
        network, said = started(tmp_path / source)
        assert said.endswith("its base with new transformers that change nothing yet")
        assert network.config == CONFIG
        assert same_parameters(network, base, base_alone=True)
        # Up to the order in which kernels add.
        torch.testing.assert_close(network(VIDEO), base(VIDEO))


def test_our_directories_and_exports_are_taken_whole(tmp_path: Path, trained: Network):
    save_directory(trained, tmp_path / "ours", card="", dtype="float32")
    network, said = started(tmp_path / "ours", None)
    assert said.endswith("the whole of it")
    assert same_parameters(network, trained)
    checkpoint = Checkpoint(network=trained, fingerprint=fingerprint(trained), ema_loss=None)
    export_programs(Tokenizer(checkpoint), tmp_path / "programs")
    network, said = started(tmp_path / "programs")
    assert said.endswith("the whole of it")
    assert same_parameters(network, trained)
    base_alone = dataclasses.replace(CONFIG, transformer=None)
    for source in ("ours", "programs"):
        network, said = started(tmp_path / source, base_alone)
        assert said.endswith("its base")
        assert same_parameters(trained, network)


def test_what_does_not_fit_is_listed(tmp_path: Path, trained: Network):
    layout = published_layout(trained)
    del layout["network.vit_encoder.0.mlp.w1.weight"]
    layout["network.decoder.conv_out.2.weight"] = torch.zeros(1)
    torch.save(layout, tmp_path / "infotok.pt")
    with pytest.raises(PipelineError) as caught:
        started(tmp_path / "infotok.pt")
    text = str(caught.value)
    assert "infotok.pt: 1 parameters missing: vit_encoder.0.mlp.w1.weight" in text
    assert "1 parameters unexpected: decoder.conv_out.2.weight" in text
    fewer = dataclasses.replace(CONFIG, transformer=dataclasses.replace(INNER, decoder_layers=1))
    torch.save(published_layout(trained), tmp_path / "infotok.pt")
    with pytest.raises(PipelineError, match=r"unexpected: vit_decoder\.1\.attention"):
        started(tmp_path / "infotok.pt", fewer)
    wider = dataclasses.replace(CONFIG, z_channels=24)
    save_directory(trained, tmp_path / "ours", card="", dtype="float32")
    with pytest.raises(PipelineError, match=r"cannot become the recipe's network: .* has no place"):
        started(tmp_path / "ours", wider)
    for missing in ("nowhere", "nowhere.pt"):
        with pytest.raises(PipelineError, match=f"{missing}: does not exist"):
            started(tmp_path / missing)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PipelineError, match=r"holds none of autoencoder\.jit"):
        started(tmp_path / "empty")
