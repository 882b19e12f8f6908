"""A network as programs, and the programs as a checkpoint."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from infotok_core.checkpoint import Checkpoint, fingerprint, save_directory
from infotok_core.config import TokenizerConfig, TransformerConfig
from infotok_core.errors import CheckpointError
from infotok_core.export import export_programs
from infotok_core.network import build_network
from infotok_core.opening import identify_tokenizer, open_tokenizer
from infotok_core.programs import ProgramTokenizer
from infotok_core.tokenizer import Tokenizer
from infotok_core.warm_start import load_base
from infotok_core.weight_files import load_program


def tokenizer_of(config: TokenizerConfig) -> Tokenizer:
    network = build_network(config, seed=3).eval()
    return Tokenizer(Checkpoint(network=network, fingerprint=fingerprint(network), ema_loss=None))


@pytest.fixture(scope="module")
def config(toy_config: TokenizerConfig) -> TokenizerConfig:
    """With a codebook of its own, and a transformer of another width than the latent."""
    return dataclasses.replace(toy_config, levels=(8, 5, 5))


@pytest.fixture(scope="module")
def original(config: TokenizerConfig) -> Tokenizer:
    return tokenizer_of(config)


@pytest.fixture(scope="module")
def exported(original: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> ProgramTokenizer:
    folder = tmp_path_factory.mktemp("exported")
    report = export_programs(original, folder)
    assert report.compared_tokens > 20
    assert report.max_error < 1e-5
    tokenizer = open_tokenizer(folder)
    assert isinstance(tokenizer, ProgramTokenizer)
    return tokenizer


@pytest.mark.parametrize(
    "shape", [(1, 1, 8, 8), (1, 5, 16, 40), (2, 13, 32, 24), (1, 33, 16, 16), (3, 9, 8, 64)]
)
def test_any_shape_comes_back_the_same(original, exported, shape):
    generator = torch.Generator().manual_seed(sum(shape))
    video = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=generator)
    a, b = original.analyse(video), exported.analyse(video)
    assert torch.equal(a.codes_Bthw, b.codes_Bthw)
    torch.testing.assert_close(a.information_Bthw, b.information_Bthw, atol=1e-5, rtol=1e-5)
    keep = torch.rand(a.codes_Bthw.shape, generator=generator) < 0.5
    shown, again = (t.reconstruct(a.codes_Bthw, keep).int() for t in (original, exported))
    assert (shown - again).abs().max() <= 1


def test_a_whole_batch_and_its_windows_agree(exported, original, toy_video):
    # What a GPU would do; the tokenizers above run windows one at a time.
    encoder = load_program(exported.directory / "encoder.jit")
    video = torch.rand(3, 3, 9, 16, 24) * 2 - 1
    indices, codes = encoder(video)
    assert indices.dtype == torch.int32
    assert torch.equal(codes, original.network.dequantize(indices))
    for i in range(3):
        assert torch.equal(encoder(video[i : i + 1])[0], indices[i : i + 1])


def test_the_settings_are_those_of_the_network(original, exported):
    assert exported.shape == original.shape
    assert exported.settings.levels == (8, 5, 5)
    assert exported.settings.fill_index == 4 + 2 * 8 + 2 * 40
    assert exported.settings.precision == "float32"
    assert exported.fingerprint != original.fingerprint
    with pytest.raises(ValueError, match="exceeds the embeddings"):
        exported.analyse(torch.zeros(1, 197, 8, 8, 3, dtype=torch.uint8))


def test_the_mask_and_the_index_of_the_zero_code_drop_the_same(exported):
    decoder = load_program(exported.directory / "decoder.jit")
    codes = torch.randint(0, 200, (1, 3, 2, 3), dtype=torch.int32)
    keep = torch.rand(codes.shape) < 0.5
    filled = codes.where(keep, exported.settings.fill_index)
    assert torch.equal(decoder(codes, keep), decoder(filled))
    assert not torch.equal(decoder(codes, keep), decoder(codes))


def test_each_program_has_the_weights_of_its_direction_alone(exported, original):
    sizes = [
        sum(p.numel() for p in load_program(exported.directory / name).parameters())
        for name in ("encoder.jit", "decoder.jit")
    ]
    network = original.network
    shared = [network.temporal_embed, *network.vit_conv.parameters()]
    shared += list(network.post_vit_conv.parameters())
    both = sum(p.numel() for p in shared)
    assert sum(sizes) == sum(p.numel() for p in network.parameters()) + both


def test_the_base_of_an_export_can_be_trained_on(exported, original, config):
    network = load_base(exported.directory, config)
    pairs = zip(network.decoder.parameters(), original.network.decoder.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_an_export_does_not_go_into_a_checkpoint(tmp_path, original):
    save_directory(original.network, tmp_path, card="")
    with pytest.raises(CheckpointError, match="holds a checkpoint: export into another"):
        export_programs(original, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["fingerprint"]
    assert identify_tokenizer(tmp_path).shape == original.shape


# Half a minute of two cores: torch.export takes seconds for the smallest network, at loading, too.
@pytest.mark.slow
def test_torch_export_programs_take_any_batch_of_their_window(tmp_path):
    inner = TransformerConfig(hidden=4, mlp_hidden=4, encoder_layers=1, decoder_layers=1, heads=1)
    tokenizer = tokenizer_of(
        TokenizerConfig(
            channels=2, channels_mult=(1,), num_res_blocks=1, patch_size=2, z_channels=4,
            levels=(4, 3), spatial_compression=2, temporal_compression=2, transformer=inner,
        )
    )  # fmt: skip
    report = export_programs(tokenizer, tmp_path, kind="pt2", window=(3, 4, 6))
    assert report.compared_tokens == 2 * 2 * 3
    encoder, decoder = (torch.export.load(p).module() for p in (report.encoder, report.decoder))
    video = torch.rand(3, 3, 3, 4, 6) * 2 - 1
    indices, _ = encoder(video)
    assert torch.equal(indices, tokenizer.network.tokenize(video).indices_BTHW)
    keep = torch.ones_like(indices, dtype=torch.bool)
    shown = tokenizer.network.decode_codes(tokenizer.network.dequantize(indices))
    torch.testing.assert_close(decoder(indices, keep), shown, atol=1e-5, rtol=1e-5)
    with pytest.raises(AssertionError, match=r"video\.size\(\)\[3\] == 4"):
        encoder(torch.zeros(1, 3, 3, 8, 6))
    with pytest.raises(ValueError, match=r"1 \+ 2k frames, not 4"):
        export_programs(tokenizer, tmp_path, kind="pt2", window=(4, 4, 6))
