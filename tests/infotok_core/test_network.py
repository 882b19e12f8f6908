from __future__ import annotations

import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F
from shared import requires_shared, shared_dir
from torch import nn

from infotok_core.compressor import TransformerLayer, rotary_tables, run_stack
from infotok_core.config import (
    TokenizerConfig,
    TransformerConfig,
    from_dict,
    mini,
    published,
    to_dict,
)
from infotok_core.network import Network, build_network


@requires_shared
@pytest.mark.shared
def test_the_published_network_has_the_published_parameters():
    path = shared_dir() / "golden" / "published_state_dict_keys.json"
    listed = json.loads(path.read_text())["keys"]
    wanted = {e["key"]: tuple(e["shape"]) for e in listed if e["kind"] == "param"}
    with torch.device("meta"):
        network = Network(published())
    assert {k: tuple(p.shape) for k, p in network.named_parameters()} == wanted
    assert len(wanted) == 463
    assert set(network.state_dict()) == set(wanted)
    assert sum(p.numel() for p in network.parameters()) == 123_142_646


@torch.inference_mode()
def test_a_prefix_of_the_video_gives_the_prefix_of_tokens_and_pixels(toy_network):
    video = torch.rand(1, 3, 13, 32, 32) * 2 - 1
    full = toy_network.tokenize(video)
    pixels = toy_network.decode_codes(full.codes_BCTHW)
    for frames, latent_frames in ((1, 1), (5, 2), (9, 3)):
        part = toy_network.tokenize(video[:, :, :frames])
        assert torch.equal(part.indices_BTHW, full.indices_BTHW[:, :latent_frames])
        shown = toy_network.decode_codes(full.codes_BCTHW[:, :, :latent_frames])
        torch.testing.assert_close(shown, pixels[:, :, :frames], atol=1e-5, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize("patch_size", [2, 4])
def test_the_family_keeps_shapes_with_and_without_transformers(toy_config, patch_size):
    for transformer in (toy_config.transformer, None):
        config = dataclasses.replace(toy_config, patch_size=patch_size, transformer=transformer)
        network = build_network(config, seed=0).eval()
        video = torch.rand(2, 3, 9, 16, 24)
        assert network.encode(video).shape == (2, 16, 3, 2, 3)
        assert network(video).shape == video.shape


def test_dropped_codes_get_no_gradient_and_every_parameter_gets_one(toy_network):
    video = torch.rand(1, 3, 5, 16, 16)
    (toy_network(video) - video).abs().mean().backward()
    assert all(p.grad is not None for p in toy_network.parameters())
    toy_network.zero_grad()
    toy_network(video, torch.zeros(1, 2, 2, 2, dtype=torch.bool)).mean().backward()
    weight = toy_network.quant_conv.conv3d.weight.grad
    assert weight is not None
    assert weight.count_nonzero() == 0


@torch.inference_mode()
def test_a_network_cast_to_bfloat16_stays_close(toy_network):
    video = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    tokens = toy_network.tokenize(video)
    shown = toy_network.decode_codes(tokens.codes_BCTHW)
    toy_network.to(torch.bfloat16)
    cast = toy_network.tokenize(video.bfloat16())
    assert (cast.indices_BTHW == tokens.indices_BTHW).float().mean() > 0.5
    again = toy_network.decode_codes(tokens.codes_BCTHW)
    assert again.dtype == torch.bfloat16
    assert (again.float() - shown).abs().mean() < 0.1 * shown.abs().mean()


def test_weights_depend_on_the_seed_alone(toy_config):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again = build_network(toy_config, seed=3), build_network(toy_config, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    pairs = zip(first.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_grid_beyond_the_embeddings_is_refused(toy_network):
    with pytest.raises(ValueError, match="50x1x1 exceeds 49 frames"):
        toy_network.compress(torch.zeros(1, 16, 50, 1, 1))


def test_the_network_compiles_without_graph_breaks(toy_network):
    compiled = torch.compile(toy_network, backend="eager", fullgraph=True, dynamic=False)
    video = torch.rand(1, 3, 5, 16, 16)
    keep = torch.ones(1, 2, 2, 2, dtype=torch.bool)
    torch.testing.assert_close(compiled(video, keep), toy_network(video, keep))


@torch.inference_mode()
@pytest.mark.parametrize("double", [True, False])
def test_a_layer_is_masked_multihead_attention_after_its_own_projection(double):
    """Against torch's module with the N x N mask and complex rotations, as the facts tell it."""
    config = TransformerConfig(
        hidden=16,
        mlp_hidden=24,
        encoder_layers=1,
        decoder_layers=1,
        heads=2,
        init_std=0.2,
        double_projection=double,
    )
    t, h, w = 3, 2, 3
    torch.manual_seed(0)
    layer, embed = TransformerLayer(config), torch.randn(5, 16)
    x = torch.randn(2, 16, t, h, w)
    rows, columns = rotary_tables(config)
    ours = run_stack(
        nn.ModuleList([layer]), x, temporal_embed_TC=embed, row_turns=rows, column_turns=columns
    )
    tokens = x.permute(0, 2, 3, 4, 1).reshape(2, t * h * w, 16)
    tokens = tokens + embed[:t].repeat_interleave(h * w, dim=0)
    expected = tokens + _attention(layer, config, tokens, grid=(t, h, w))
    y = _rms(expected, layer.ffn_norm.weight)
    mlp = layer.mlp
    expected = expected + mlp.w2(F.silu(mlp.w1(y)) * mlp.w3(y))
    torch.testing.assert_close(ours.permute(0, 2, 3, 4, 1).reshape(2, -1, 16), expected)


def _rms(x, weight):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * weight


def _attention(layer, config, tokens, *, grid):
    t, h, w = grid
    mha = layer.attention.mha
    q, k, v = F.linear(
        _rms(tokens, layer.attention_norm.weight), mha.in_proj_weight, mha.in_proj_bias
    ).chunk(3, dim=-1)
    f = [10000.0 ** (-2 * j / 8) for j in range(4)]
    angles = torch.tensor(
        [
            [i * f[0], i * f[2], j * f[1], j * f[3]]
            for _ in range(t)
            for i in range(h)
            for j in range(w)
        ]
    )
    turn = torch.polar(torch.ones_like(angles), angles)[None, :, None]

    def rotate(part):
        pairs = torch.view_as_complex(part.reshape(2, -1, config.heads, 4, 2).contiguous())
        return torch.view_as_real(pairs * turn).reshape(part.shape)

    torch_layer = nn.MultiheadAttention(16, config.heads, batch_first=True).eval()
    torch_layer.in_proj_weight.copy_(
        mha.in_proj_weight if config.double_projection else torch.eye(16).repeat(3, 1)
    )
    torch_layer.in_proj_bias.copy_(
        mha.in_proj_bias if config.double_projection else torch.zeros(48)
    )
    torch_layer.out_proj.load_state_dict(mha.out_proj.state_dict())
    frame = torch.arange(t).repeat_interleave(h * w)
    hidden = frame[None, :] > frame[:, None]
    return torch_layer(rotate(q), rotate(k), v, attn_mask=hidden, need_weights=False)[0]


def test_the_mini_network_is_a_twentieth_of_the_published_one():
    with torch.device("meta"):
        network = Network(mini())
    assert sum(p.numel() for p in network.parameters()) < 123_142_646 / 20


def with_extras(config: TokenizerConfig) -> TokenizerConfig:
    inner = config.transformer
    assert inner is not None
    inner = dataclasses.replace(inner, mask_embedding=True)
    return dataclasses.replace(config, transformer=inner, latent_router=4)


def test_a_mask_embedding_shows_where_something_was_dropped_and_only_there(
    toy_config: TokenizerConfig,
):
    network = build_network(with_extras(toy_config), seed=1).eval()
    codes = torch.zeros(1, 6, 2, 2, 2)
    all_kept = torch.ones(1, 1, 2, 2, 2)
    some = all_kept.clone()
    some[..., 0] = 0
    with torch.no_grad():
        network.dropped_embed.fill_(0.5)
        plain = network.decode_codes(codes)
        assert torch.equal(network.decode_codes(codes, all_kept), plain)
        # The code 0 itself, kept, is not a dropped position.
        assert not torch.equal(network.decode_codes(codes, some), plain)


def test_the_latent_router_gives_a_positive_number_for_every_token(toy_config: TokenizerConfig):
    network = build_network(with_extras(toy_config), seed=1).eval()
    latent = network.compress(network.encode(torch.rand(2, 3, 5, 16, 24) * 2 - 1))
    information = network.predict_information(latent)
    assert information.shape == (2, 2, 2, 3)
    assert (information > 0).all()
    with pytest.raises(ValueError, match="no latent router"):
        build_network(toy_config, seed=1).predict_information(latent)


def test_choices_that_are_not_made_do_not_change_who_a_network_is(toy_config: TokenizerConfig):
    document = to_dict(toy_config)
    assert "latent_router" not in document
    assert "mask_embedding" not in document["transformer"]
    assert from_dict(document) == toy_config
    extras = with_extras(toy_config)
    assert from_dict(to_dict(extras)) == extras
