"""Bases that somebody else trained, under the names of the Cosmos autoencoder."""

from __future__ import annotations

import dataclasses
import json
import warnings

import pytest
import safetensors.torch
import torch
from shared import requires_shared, shared_dir
from torch import Tensor, nn

from infotok_core.checkpoint import save_directory
from infotok_core.config import published
from infotok_core.errors import CheckpointError
from infotok_core.network import Network, build_network
from infotok_core.warm_start import base_tensors, is_base_name, load_base

ENCODING = ("encoder", "quant_conv")
DECODING = ("post_quant_conv", "decoder")


class Autoencoder(nn.Module):
    """The layout of ``autoencoder.jit``: the parts by name, with constants beside them."""

    def __init__(self, network: Network, parts: tuple[str, ...]) -> None:
        super().__init__()
        for part in parts:
            self.add_module(part, getattr(network, part))
        self.quantizer = nn.Module()
        self.quantizer.register_buffer("_levels", torch.tensor([8, 8, 8, 5, 5, 5]))

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.fixture
def base(toy_config) -> Network:
    """A plain base, as its owner trained it."""
    config = dataclasses.replace(toy_config, transformer=None)
    return build_network(config, seed=9).eval()


@pytest.fixture
def layout(base: Network) -> dict[str, Tensor]:
    tensors = {k: v.detach().bfloat16() for k, v in base.named_parameters()}
    return tensors | {
        "quantizer._levels": torch.tensor([8, 8, 8, 5, 5, 5]),
        "encoder.patcher3d.wavelets": torch.zeros(2),
        "decoder.unpatcher3d.wavelets": torch.zeros(2),
    }


def trace(module: nn.Module, path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(module, torch.zeros(1)).save(str(path))


def has_base_of(network: Network, base: Network) -> bool:
    own = dict(network.named_parameters())
    return all(torch.equal(own[k], v) for k, v in base.named_parameters() if is_base_name(k))


@torch.no_grad()
def test_a_warm_start_computes_what_the_base_computes(tmp_path, base, toy_config, layout):
    # The transformers are wider than the latent: the maps in and out have to be silent, too.
    assert toy_config.transformer.hidden > toy_config.z_channels
    torch.save(layout, tmp_path / "base.pt")
    network = load_base(tmp_path / "base.pt", toy_config)
    assert network.config == toy_config
    assert not network.training
    assert all(p.requires_grad and p.dtype == torch.float32 for p in network.parameters())
    base.load_state_dict({k: v for k, v in layout.items() if k in dict(base.named_parameters())})
    video = torch.rand(1, 3, 5, 16, 24) * 2 - 1
    assert torch.equal(network.tokenize(video).indices_BTHW, base.tokenize(video).indices_BTHW)
    assert torch.equal(network(video), base(video))


def test_a_warm_start_can_be_trained(tmp_path, base, toy_config, layout):
    torch.save(layout, tmp_path / "base.pt")
    network = load_base(tmp_path / "base.pt", toy_config)
    network(torch.rand(1, 3, 5, 16, 16)).mean().backward()
    silenced = network.vit_decoder[0].mlp.w2.weight.grad
    assert silenced is not None
    assert silenced.count_nonzero() > 0


def test_every_layout_of_the_same_base_gives_the_same_network(tmp_path, base, toy_config):
    weights = {k: v.detach() for k, v in base.named_parameters()}
    safetensors.torch.save_file(weights, tmp_path / "base.safetensors")
    torch.save({"model": {f"network.{k}": v for k, v in weights.items()}}, tmp_path / "model.pt")
    for name, parts in (("encoder", ENCODING), ("decoder", DECODING)):
        (tmp_path / "pair").mkdir(exist_ok=True)
        trace(Autoencoder(base, parts), tmp_path / "pair" / f"{name}.jit")
    (tmp_path / "whole").mkdir()
    trace(Autoencoder(base, ENCODING + DECODING), tmp_path / "whole" / "autoencoder.jit")
    # The official folder has a file of this name that is none of ours.
    (tmp_path / "whole" / "config.json").write_text("{}")
    save_directory(base, tmp_path / "ours", card="", dtype="float32")
    sources = ("base.safetensors", "model.pt", "pair", "whole", "ours")
    for source in sources:
        assert has_base_of(load_base(tmp_path / source, toy_config), base), source


def test_transformers_in_the_source_start_anew(tmp_path, toy_network, toy_config):
    wider = dataclasses.replace(toy_config.transformer, hidden=32, encoder_layers=3)
    config = dataclasses.replace(toy_config, transformer=wider)
    save_directory(toy_network, tmp_path / "ours", card="", dtype="float32")
    network = load_base(tmp_path / "ours", config, seed=1)
    assert has_base_of(network, toy_network)
    assert len(network.vit_encoder) == 3
    fingerprints = [
        network.vit_encoder[0].attention.mha.in_proj_weight,
        load_base(tmp_path / "ours", config, seed=1).vit_encoder[0].attention.mha.in_proj_weight,
        load_base(tmp_path / "ours", config, seed=2).vit_encoder[0].attention.mha.in_proj_weight,
    ]
    assert torch.equal(fingerprints[0], fingerprints[1])
    assert not torch.equal(fingerprints[0], fingerprints[2])


def test_what_does_not_fit_is_listed(tmp_path, toy_config, layout):
    del layout["quant_conv.conv3d.bias"]
    layout["decoder.conv_out.2.weight"] = torch.zeros(1)
    layout["post_quant_conv.conv3d.bias"] = torch.zeros(7)
    torch.save(layout, tmp_path / "base.pt")
    with pytest.raises(CheckpointError) as caught:
        load_base(tmp_path / "base.pt", toy_config)
    text = str(caught.value)
    assert "base.pt: 1 parameters missing: quant_conv.conv3d.bias" in text
    assert "1 parameters unexpected: decoder.conv_out.2.weight" in text
    assert "post_quant_conv.conv3d.bias (file [7], network [16])" in text


def test_half_a_pair_and_nothing_are_named(tmp_path, base, toy_config):
    with pytest.raises(CheckpointError, match=r"holds none of autoencoder\.jit, encoder\.jit"):
        load_base(tmp_path, toy_config)
    trace(Autoencoder(base, ENCODING), tmp_path / "encoder.jit")
    with pytest.raises(CheckpointError, match=r"decoder\.jit: does not exist"):
        load_base(tmp_path, toy_config)
    with pytest.raises(CheckpointError, match="nowhere: does not exist"):
        load_base(tmp_path / "nowhere", toy_config)


def test_transformers_narrower_than_the_latent_cannot_be_the_identity(tmp_path, toy_config):
    narrow = dataclasses.replace(toy_config.transformer, hidden=8)
    with pytest.raises(ValueError, match="width 8 cannot start as the identity"):
        load_base(tmp_path, dataclasses.replace(toy_config, transformer=narrow))


@requires_shared
@pytest.mark.shared
def test_the_base_of_the_published_network_has_the_names_and_shapes_of_the_published_one():
    path = shared_dir() / "golden" / "published_state_dict_keys.json"
    stored = {
        entry["key"]: torch.empty(entry["shape"], device="meta")
        for entry in json.loads(path.read_text())["keys"]
        if entry["ckpt_key"]
    }
    # Without transformers it is the layout of the Cosmos autoencoder.
    found = base_tensors({f"network.{name}": tensor for name, tensor in stored.items()})
    with torch.device("meta"):
        network = Network(published())
    wanted = {k: p.shape for k, p in network.named_parameters() if is_base_name(k)}
    assert {k: v.shape for k, v in found.items() if is_base_name(k)} == wanted
    assert sum(shape.numel() for shape in wanted.values()) == 112_619_766
    rest = {name.split(".")[0] for name in set(found) - set(wanted)}
    assert rest == {"quantizer", "save_loss", "ema_loss"}
