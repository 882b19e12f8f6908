from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from torch.serialization import set_crc32_options

from infotok_core.checkpoint import (
    fingerprint,
    load_checkpoint,
    load_parameters,
    save_directory,
)
from infotok_core.config import mini
from infotok_core.errors import CheckpointError
from infotok_core.network import Network
from infotok_core.tokenizer import Tokenizer


@pytest.fixture
def published_layout(toy_network: Network) -> dict[str, torch.Tensor]:
    """What a training run of the published code stores."""
    tensors = {f"network.{k}": v.detach() for k, v in toy_network.named_parameters()}
    return tensors | {
        "network.save_loss": torch.zeros(128),
        "network.ema_loss": torch.tensor([0.25]),
        "network.quantizer._levels": torch.tensor([8, 8, 8, 5, 5, 5]),
        "network.quantizer.implicit_codebook": torch.zeros(4, 6, dtype=torch.bfloat16),
        "ema.network-encoder-conv_in-0-conv3d-weight": torch.zeros(1),
        "loss.weight": torch.zeros(1),
    }


def same(left: Network, right: Network) -> bool:
    pairs = zip(left.parameters(), right.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_flat_nested_and_compiled_files_load(tmp_path, toy_network, toy_config, published_layout):
    compiled = {k.replace("network.", "network._orig_mod."): v for k, v in published_layout.items()}
    documents = {
        "flat": published_layout,
        "nested": {"model": published_layout, "iteration": 3, "optimizer": {"lr": 0.1}},
        "compiled": compiled,
        "bare": {k: v.detach() for k, v in toy_network.named_parameters()},
    }
    for name, document in documents.items():
        torch.save(document, tmp_path / f"{name}.pt")
        loaded = load_checkpoint(tmp_path / f"{name}.pt", config=toy_config)
        assert same(loaded.network, toy_network), name
        assert loaded.fingerprint == fingerprint(toy_network)
        assert loaded.ema_loss == (None if name == "bare" else 0.25)
        assert not loaded.network.training


def test_the_published_layout_loads_from_safetensors_too(tmp_path, toy_network, toy_config):
    tensors = {k: v.detach() for k, v in toy_network.named_parameters()}
    safetensors.torch.save_file(tensors, tmp_path / "weights.safetensors")
    loaded = load_checkpoint(tmp_path / "weights.safetensors", config=toy_config)
    assert same(loaded.network, toy_network)


def test_half_precision_weights_become_float32(tmp_path, toy_config, published_layout):
    halved = {k: v.bfloat16() if v.is_floating_point() else v for k, v in published_layout.items()}
    torch.save(halved, tmp_path / "bf16.pt")
    network = load_checkpoint(tmp_path / "bf16.pt", config=toy_config).network
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    wanted = halved["network.quant_conv.conv3d.weight"].float()
    assert torch.equal(network.quant_conv.conv3d.weight, wanted)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_our_directory_comes_back(tmp_path, toy_network, toy_video, dtype):
    identity = save_directory(toy_network, tmp_path / "ckpt", card="# Toy\n", dtype=dtype)
    names = sorted(p.name for p in (tmp_path / "ckpt").iterdir())
    assert names == ["README.md", "config.json", "model.safetensors"]
    tokenizer = Tokenizer.load(tmp_path / "ckpt")
    assert tokenizer.fingerprint == identity
    assert (identity == fingerprint(toy_network)) == (dtype == "float32")
    # What was loaded is written back byte for byte.
    again = save_directory(tokenizer.network, tmp_path / "again", card="# Toy\n", dtype=dtype)
    assert again == identity
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "ckpt" / name).read_bytes()
    assert tokenizer.analyse(toy_video[:1]).codes_Bthw.shape == (1, 4, 4, 6)


def test_the_fingerprint_ignores_memory_layout_and_sees_one_weight(toy_network):
    before = fingerprint(toy_network)
    weight = toy_network.encoder.conv_in[0].conv3d.weight
    weight.data = weight.data.to(memory_format=torch.channels_last_3d)
    assert fingerprint(toy_network) == before
    weight.data[0, 0, 0, 0, 0] += 1e-3
    assert fingerprint(toy_network) != before


def test_wrong_names_and_shapes_are_listed(tmp_path, toy_config, published_layout):
    del published_layout["network.temporal_embed"]
    published_layout["network.temporal_embedding"] = torch.zeros(1)
    published_layout["network.quant_conv.conv3d.bias"] = torch.zeros(7)
    torch.save(published_layout, tmp_path / "other.pt")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "other.pt", config=toy_config)
    text = str(caught.value)
    assert str(tmp_path / "other.pt") in text
    assert "1 parameters missing: temporal_embed" in text
    assert "unexpected: temporal_embedding" in text
    assert "quant_conv.conv3d.bias (file [7], network [6])" in text


def test_integers_and_nan_are_not_weights(toy_network, toy_config, published_layout):
    with torch.device("meta"):
        empty = Network(toy_config)
    broken = published_layout | {
        "network.quant_conv.conv3d.bias": torch.zeros(6, dtype=torch.int32)
    }
    with pytest.raises(CheckpointError, match="not floating point: quant_conv"):
        load_parameters(empty, broken, source="a file")
    broken = published_layout | {"network.quant_conv.conv3d.bias": torch.full((6,), torch.nan)}
    with pytest.raises(CheckpointError, match="not finite: quant_conv"):
        load_parameters(empty, broken, source="a file")


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"<html>404</html>", "not a zip archive"),
    ],
)
def test_a_file_that_is_no_checkpoint_says_what_it_is(tmp_path, content, cause):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=cause):
        load_checkpoint(tmp_path / "x.pt")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file that cannot be read")
def test_a_file_that_cannot_be_read_says_why(tmp_path):
    (tmp_path / "x.pt").symlink_to("/proc/self/mem")
    with pytest.raises(CheckpointError, match="cannot be read: Input/output error"):
        load_checkpoint(tmp_path / "x.pt")


def test_flipped_bits_are_no_weights(tmp_path, published_layout, toy_network):
    path = tmp_path / "flipped.pt"
    torch.save(published_layout, path)
    data = bytearray(path.read_bytes())
    place = data.find(published_layout["network.quant_conv.conv3d.weight"].numpy().tobytes())
    assert place > 0
    data[place + 3] ^= 0x01
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="does not match its checksum"):
        load_checkpoint(path, config=toy_network.config)


def test_weights_that_were_written_without_checksums_are_weights(
    tmp_path, published_layout, toy_network
):
    set_crc32_options(False)
    try:
        torch.save(published_layout, tmp_path / "unchecked.pt")
    finally:
        set_crc32_options(True)
    loaded = load_checkpoint(tmp_path / "unchecked.pt", config=toy_network.config)
    assert same(loaded.network, toy_network)


def test_weights_that_cannot_be_written_leave_the_former_ones(tmp_path, toy_network):
    save_directory(toy_network, tmp_path, card="")
    before = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors.tmp").mkdir()
    with pytest.raises((OSError, safetensors.SafetensorError)):
        save_directory(toy_network, tmp_path, card="")
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_a_truncated_file_says_so(tmp_path, published_layout):
    torch.save(published_layout, tmp_path / "whole.pt")
    data = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "part.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="truncated"):
        load_checkpoint(tmp_path / "part.pt")


class _Surprise:
    pass


def test_pickled_objects_are_not_loaded(tmp_path):
    torch.save({"model": {}, "scheduler": _Surprise()}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="other than tensors"):
        load_checkpoint(tmp_path / "x.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="holds a list"):
        load_checkpoint(tmp_path / "list.pt")


def test_a_damaged_directory_says_which_file(tmp_path, toy_network):
    with pytest.raises(CheckpointError, match=r"config\.json: does not exist"):
        load_checkpoint(tmp_path)
    save_directory(toy_network, tmp_path, card="")
    weights = tmp_path / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-10])
    with pytest.raises(CheckpointError, match="damaged or not safetensors"):
        load_checkpoint(tmp_path)
    weights.write_bytes(data[:-2] + bytes([data[-2] ^ 1, data[-1]]))
    with pytest.raises(CheckpointError, match=r"fingerprint .* differs"):
        load_checkpoint(tmp_path)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: does not exist"):
        load_checkpoint(tmp_path)
    document = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(document | {"format_version": 99}))
    with pytest.raises(CheckpointError, match="99 is newer"):
        load_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(CheckpointError, match="not a checkpoint configuration"):
        load_checkpoint(tmp_path)


def test_a_directory_has_its_own_configuration(tmp_path, toy_network, toy_config):
    save_directory(toy_network, tmp_path, card="")
    assert load_checkpoint(tmp_path, config=toy_config).network.config == toy_config
    with pytest.raises(ValueError, match="differs"):
        load_checkpoint(tmp_path, config=mini())


def test_an_absent_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere: does not exist"):
        load_checkpoint(tmp_path / "nowhere")


def test_weights_too_large_for_float16_are_not_saved(tmp_path, toy_network):
    toy_network.quant_conv.conv3d.bias.data[0] = 1e6
    with pytest.raises(ValueError, match="not finite in float16: quant_conv"):
        save_directory(toy_network, tmp_path, card="")


def test_the_error_survives_pickling():
    error = pickle.loads(pickle.dumps(CheckpointError("a.pt", "is empty")))
    assert str(error) == "checkpoint a.pt: is empty"
    assert (error.path, error.cause) == ("a.pt", "is empty")
