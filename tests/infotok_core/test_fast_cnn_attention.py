"""The CNN's attention by kernels of ours, and by the library where there is too much for them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from infotok_core.attention import SpatialAttention, TemporalAttention
from infotok_core.fast import cnn_attention
from infotok_core.fast.cnn_attention import FastSpatialAttention, FastTemporalAttention

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
DEVICE = torch.device("cuda")


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("frames", [1, 5, 9])
@pytest.mark.parametrize("kind", [SpatialAttention, TemporalAttention])
def test_it_is_the_plain_attention(
    monkeypatch: pytest.MonkeyPatch,
    kind: type[SpatialAttention] | type[TemporalAttention],
    frames: int,
    ours: bool,
):
    if not ours:
        monkeypatch.setattr(cnn_attention, "_MOST_PIXELS", 0)
        monkeypatch.setattr(cnn_attention, "_MOST_VALUES", 0)
    torch.manual_seed(0)
    plain = kind(96).to(DEVICE).eval()
    half: nn.Module = copy.deepcopy(plain).half()
    fast = FastSpatialAttention if kind is SpatialAttention else FastTemporalAttention
    x = torch.randn(2, 96, frames, 5, 9, device=DEVICE)
    with torch.inference_mode():
        wanted, found = plain(x), fast(half)(x.half())  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(found.float(), wanted, atol=5e-3, rtol=5e-3)
