"""Pixels, patches and convolutions in time by our kernels, against the plain arithmetic."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from infotok_core.fast import ops, pixels
from infotok_core.information import token_information
from infotok_core.patching import Patcher, Unpatcher
from infotok_core.tokenizer import from_uint8

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
DEVICE = torch.device("cuda")


def some_video(frames: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (2, frames, height, width, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(DEVICE)


def test_bytes_become_the_same_floats():
    video = some_video(5, 24, 40)
    assert torch.equal(pixels.from_uint8(video), from_uint8(video))
    part = video[:, 1:4, :, 8:]
    assert torch.equal(pixels.from_uint8(part), from_uint8(part))


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("width", [16, 144])
def test_patches_are_the_plain_ones_there_and_back(size: int, width: int):
    video = pixels.from_uint8(some_video(9, 16, width))
    patcher, unpatcher = Patcher(size).to(DEVICE), Unpatcher(size).to(DEVICE)
    bands = patcher(video)
    ours = pixels.FastPatcher(patcher, torch.float16)(video)
    assert ours.dtype == torch.float16
    torch.testing.assert_close(ours.float(), bands, atol=5e-4, rtol=1e-3)
    back = pixels.FastUnpatcher(unpatcher)(ours)
    torch.testing.assert_close(back, unpatcher(ours.float()), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(back, video, atol=5e-3, rtol=0)


@pytest.mark.parametrize(("temporal", "spatial", "width"), [(4, 8, 264), (4, 16, 48), (8, 8, 64)])
def test_information_is_the_plain_one(temporal: int, spatial: int, width: int):
    video = pixels.from_uint8(some_video(17, 32, width))
    shown = video + torch.randn_like(video) / 10
    ours = pixels.token_information(video, shown, temporal=temporal, spatial=spatial)
    plain = token_information(video, shown, temporal=temporal, spatial=spatial)
    torch.testing.assert_close(ours, plain, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("stride", "repeat"), [(1, False), (2, False), (1, True)])
@pytest.mark.parametrize("skip", [False, True])
def test_a_convolution_by_tiles_is_that_of_any_shape_bit_for_bit(
    monkeypatch: pytest.MonkeyPatch, stride: int, repeat: bool, skip: bool
):
    x = torch.randn(2, 5, 512, 128, device=DEVICE, dtype=torch.float16)
    taps = torch.randn(3, 128, 512, device=DEVICE, dtype=torch.float16) / 20
    bias = torch.randn(512, device=DEVICE)
    frames = 9 if repeat else -(-5 // stride)
    added = torch.randn(2, frames, 512, 512, device=DEVICE, dtype=torch.float16) if skip else None
    found: list[tuple[Tensor, Tensor | None]] = []
    takes_tiles = ops._copies_tiles
    for allowed in (True, False):
        monkeypatch.setattr(ops, "_copies_tiles", lambda *x, may=allowed: may and takes_tiles(*x))
        found.append(
            ops.causal_conv(x, taps, bias, added, stride=stride, repeat=repeat, wants_sums=True)
        )
    (one, its_sums), (other, other_sums) = found
    assert torch.equal(one, other)
    assert its_sums is not None
    assert other_sums is not None
    torch.testing.assert_close(its_sums, other_sums, rtol=1e-4, atol=1e-1)
    direct = torch.stack([one.float().sum((2, 3)), one.float().square().sum((2, 3))], -1)
    torch.testing.assert_close(its_sums, direct.flatten(0, 1), rtol=1e-3, atol=1.0)
