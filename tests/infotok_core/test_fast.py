"""The fast path against the plain network in float32, on a GPU."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from infotok_core.checkpoint import Checkpoint, fingerprint
from infotok_core.compressor import TransformerLayer
from infotok_core.config import TokenizerConfig, TransformerConfig, published
from infotok_core.fast import ops
from infotok_core.fast.network import Recorded, accelerate
from infotok_core.fast.transformer import FastTransformerLayer
from infotok_core.network import Network, build_network
from infotok_core.tokenizer import Tokenizer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

# Relative error of a stage: half precision has 11 bits of significand, bfloat16 has 8.
_BOUND = {torch.float16: 2e-3, torch.bfloat16: 1.5e-2}


def relative(result: torch.Tensor, wanted: torch.Tensor) -> float:
    difference = (result.double() - wanted.double()).norm()
    return float(difference / wanted.double().norm())


@pytest.fixture(autouse=True)
def _true_float32(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def network_of(config: TokenizerConfig) -> Network:
    network = build_network(config, seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            # Biases and norms start as 0 and 1, where much that is wrong cannot be seen.
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return network


def small(**changes: object) -> TokenizerConfig:
    inner = TransformerConfig(
        hidden=48, mlp_hidden=40, encoder_layers=2, decoder_layers=2, heads=4, init_std=0.2
    )
    config = TokenizerConfig(
        channels=24,
        channels_mult=(1, 2, 3),
        num_res_blocks=1,
        patch_size=2,
        z_channels=32,
        levels=(8, 8, 8, 5, 5, 5),
        spatial_compression=8,
        temporal_compression=4,
        transformer=inner,
    )
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type]


NETWORKS = {
    "two projections, heads of 12": small(),
    "one projection, a head of 48": small(
        transformer=dataclasses.replace(small().transformer, heads=1, double_projection=False)
    ),
    "heads as wide as their padding": small(
        transformer=dataclasses.replace(small().transformer, hidden=64, heads=2)
    ),
    "every step in another place": small(channels_mult=(1, 2), patch_size=4),
    "no transformer": small(transformer=None),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("window", [(9, 64, 64), (5, 40, 72), (1, 32, 32)])
@torch.inference_mode()
def test_every_stage_is_that_of_the_plain_network(name: str, dtype: torch.dtype, window):
    network = network_of(NETWORKS[name]).cuda()
    fast = accelerate(network, device=torch.device("cuda"), dtype=dtype)
    generator = torch.Generator(device="cuda").manual_seed(3)
    video = torch.rand((2, 3, *window), device="cuda", generator=generator) * 2 - 1
    bound = _BOUND[dtype]
    latent = network.encode(video)
    assert relative(fast.encode(video), latent) < bound
    compressed = network.compress(latent)
    assert relative(fast.compress(latent.to(dtype)), compressed) < bound
    tokens = network.quantize(compressed)
    again = fast.quantize(compressed.to(dtype))
    assert (again.indices_BTHW != tokens.indices_BTHW).float().mean() < 0.1
    shown = network.decode_codes(tokens.codes_BCTHW)
    assert relative(fast.decode_codes(tokens.codes_BCTHW), shown) < bound


@torch.inference_mode()
def test_the_published_network_agrees_too():
    network = build_network(published(), seed=0).eval().cuda()
    fast = accelerate(network, device=torch.device("cuda"), dtype=torch.float16)
    generator = torch.Generator(device="cuda").manual_seed(3)
    video = torch.rand((1, 3, 17, 128, 128), device="cuda", generator=generator) * 2 - 1
    latent = network.compress(network.encode(video))
    assert relative(fast.compress(fast.encode(video)), latent) < 2e-3
    codes = network.quantize(latent).codes_BCTHW
    assert relative(fast.decode_codes(codes), network.decode_codes(codes)) < 2e-3


# Heads, channels, projections: heads of 8 have a kernel of their own.
_LAYERS = [(32, 256, True), (12, 96, True), (12, 96, False), (1, 128, True)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("heads", "width", "twice"), _LAYERS)
@torch.inference_mode()
def test_a_layer_attends_as_the_plain_one_and_to_each_window_by_itself(
    heads: int, width: int, twice: bool, dtype: torch.dtype
):
    torch.manual_seed(5)
    config = TransformerConfig(
        hidden=width, mlp_hidden=40, encoder_layers=1, decoder_layers=1, heads=heads,
        init_std=width**-0.5, double_projection=twice,
    )  # fmt: skip
    plain = TransformerLayer(config)
    plain.attention.mha.in_proj_bias.normal_(std=0.3)
    plain = plain.cuda()
    fast = FastTransformerLayer(plain, dtype).cuda()
    # No tile of rows is full of one window.
    x_BNC = torch.randn((3, 2 * 35, width), device="cuda")
    angles = torch.rand((2 * 35, width // heads // 2), device="cuda") * 6
    turns_NE2 = torch.stack([angles.cos(), angles.sin()], dim=-1)
    qkv_BNC = F.linear(x_BNC.to(dtype), fast.weight, fast.bias)
    weight = fast.weight_again if twice else None

    def attended(qkv_BNC: torch.Tensor) -> torch.Tensor:
        return ops.attend(qkv_BNC, turns_NE2, weight, fast.bias_again, heads=heads, num_frames=2)

    exact = plain.attention(x_BNC, turns_NE2, num_frames=2)
    found = F.linear(attended(qkv_BNC).float(), plain.attention.mha.out_proj.weight)
    found += plain.attention.mha.out_proj.bias
    assert relative(found, exact) < _BOUND[dtype]
    assert torch.equal(attended(qkv_BNC[1:2]), attended(qkv_BNC)[1:2])


def tokenizer(dtype: torch.dtype = torch.float16) -> Tokenizer:
    network = network_of(small())
    checkpoint = Checkpoint(network=network, fingerprint=fingerprint(network), ema_loss=None)
    return Tokenizer(checkpoint, device="cuda", dtype=dtype)


def windows(number: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randint(0, 256, (number, 9, 64, 64, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_tokens_do_not_depend_on_the_batch_around_them_or_on_the_process(dtype: torch.dtype):
    ours, video = tokenizer(dtype), windows(4)
    together = ours.analyse(video)
    again = ours.analyse(video)
    assert torch.equal(again.codes_Bthw, together.codes_Bthw)
    backwards = tokenizer(dtype).analyse(video.flip(0))
    assert torch.equal(backwards.codes_Bthw.flip(0), together.codes_Bthw)
    assert torch.equal(backwards.information_Bthw.flip(0), together.information_Bthw)
    padded = ours.analyse(video[[2, 2, 2, 2]])
    assert torch.equal(padded.codes_Bthw[3], together.codes_Bthw[2])


def test_analysis_and_reconstruction_are_those_of_float32():
    ours, plain, video = tokenizer(), tokenizer(torch.float32), windows(2)
    wanted, found = plain.analyse(video), ours.analyse(video)
    assert (found.codes_Bthw != wanted.codes_Bthw).float().mean() < 0.05
    assert relative(found.information_Bthw, wanted.information_Bthw) < 0.02
    keep = torch.rand(wanted.codes_Bthw.shape, generator=torch.Generator().manual_seed(0)) > 0.5
    keep = keep.cuda()
    shown = ours.reconstruct(wanted.codes_Bthw, keep).float()
    difference = (shown - plain.reconstruct(wanted.codes_Bthw, keep).float()).abs()
    assert difference.mean() < 0.5


def test_a_recording_gives_each_call_results_of_its_own():
    double = Recorded(lambda x: (x * 2,))
    ones, twos = torch.ones(3, device="cuda"), torch.full((3,), 2.0, device="cuda")
    first, second = double(ones)[0], double(twos)[0]
    assert first.tolist() == [2.0] * 3
    assert second.tolist() == [4.0] * 3
    assert [double(torch.ones(n, device="cuda"))[0].numel() for n in range(1, 9)] == list(
        range(1, 9)
    )
