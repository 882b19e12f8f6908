"""The fused norm against the plain one, on a GPU."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from infotok_core import fused
from infotok_core.config import mini
from infotok_core.growing import start_as_identity
from infotok_core.layers import FrameNorm, ResBlock
from infotok_core.network import build_network
from infotok_core.objective import Objective
from infotok_core.recipe import Stage

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]


def relative(result: torch.Tensor, wanted: torch.Tensor) -> float:
    difference = (result.double() - wanted.double()).norm()
    return float(difference / wanted.double().norm())


@pytest.mark.parametrize(("length", "channels"), [(50, 64), (300, 72), (5000, 128)])
@pytest.mark.parametrize("silu", [False, True])
def test_norm_and_its_gradients_are_those_of_the_library(length: int, channels: int, silu: bool):
    generator = torch.Generator(device="cuda").manual_seed(length)
    x = torch.randn(3, length, channels, device="cuda", generator=generator) * 2 + 1
    weight, bias = torch.randn(2, channels, device="cuda", generator=generator)
    grad = torch.randn(x.shape, device="cuda", generator=generator).bfloat16()
    ours = [t.clone().requires_grad_() for t in (x, weight, bias)]
    fused.norm_silu(*ours, eps=1e-6, silu=silu).backward(grad)
    theirs = [t.double().requires_grad_() for t in (x, weight, bias)]
    y = F.group_norm(theirs[0].transpose(1, 2), 1, *theirs[1:], eps=1e-6).transpose(1, 2)
    wanted = F.silu(y) if silu else y
    wanted.backward(grad.double())
    result = fused.norm_silu(x, weight, bias, eps=1e-6, silu=silu)
    assert relative(result, wanted.detach()) < 4e-3
    for mine, reference in zip(ours, theirs, strict=True):
        assert mine.grad is not None
        assert reference.grad is not None
        assert relative(mine.grad, reference.grad) < 4e-3


def test_a_block_under_autocast_takes_the_fused_path_and_agrees_with_float32():
    torch.manual_seed(0)
    block = ResBlock(64, 128).cuda()
    x = torch.randn(2, 64, 5, 16, 16, device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        assert fused.applies(x)
        y = block(x)
        assert isinstance(block.norm1, FrameNorm)
    assert relative(y, block(x)) < 0.02


def test_the_loss_and_its_gradients_agree_with_float32():
    network = build_network(mini(), seed=0)
    start_as_identity(network)
    objective = Objective(network.cuda(), Stage(steps=1, rates=(1.0,)))
    video = torch.randint(0, 256, (2, 9, 64, 64, 3), dtype=torch.uint8, device="cuda")
    beta = torch.ones(2, device="cuda")
    exact, _ = objective(video, beta)
    with torch.autocast("cuda", torch.bfloat16):
        loss, _ = objective(video, beta)
    assert abs(loss.item() / exact.item() - 1) < 0.01
