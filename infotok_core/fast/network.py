"""A plain network made fast, and its forward pass recorded as CUDA graphs.

Shapes: B windows, T frames, H rows, W columns; t, h, w latent grid.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from infotok_core import fused
from infotok_core.attention import SpatialAttention, TemporalAttention
from infotok_core.compressor import TransformerLayer
from infotok_core.fast.cnn_attention import FastSpatialAttention, FastTemporalAttention
from infotok_core.fast.modules import (
    FastConvolutions,
    FastDownsample,
    FastFrameNorm,
    FastPointwise,
    FastResBlock,
    FastUpsample,
)
from infotok_core.fast.pixels import FastPatcher, FastUnpatcher
from infotok_core.fast.transformer import FastTransformerLayer
from infotok_core.layers import (
    Downsample,
    FrameNorm,
    ResBlock,
    SpatialConv,
    TemporalConv,
    Upsample,
)
from infotok_core.network import Network
from infotok_core.patching import Patcher, Unpatcher

__all__ = ["Recorded", "accelerate", "is_accelerated"]


def accelerate(network: Network, *, device: torch.device, dtype: torch.dtype) -> Network:
    """A copy of ``network`` that computes the same faster on a GPU; it cannot be trained.

    Weights are folded before they are rounded to ``dtype``. Patching, unpatching and the rotary
    tables stay in float32: give it the video as float32.

    Raises:
        ValueError: If Triton is not installed.
    """
    if not fused.has_triton():
        raise ValueError("half precision on a GPU needs triton: install it, or compute in float32")
    fast = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
    _replace(fast, dtype)
    # What is rounded to a code next: a tiny product, whose own rounding would change codes.
    fast.quant_conv = FastPointwise(network.quant_conv, torch.float32)  # pyright: ignore[reportAttributeAccessIssue]
    for parameter in fast.parameters():
        layout = torch.channels_last_3d if parameter.dim() == 5 else torch.preserve_format
        parameter.data = parameter.data.to(dtype, memory_format=layout)
    return fast.to(device)


def is_accelerated(network: Network) -> bool:
    """Whether `accelerate` made it."""
    return isinstance(network.encoder.norm_out, FastFrameNorm)


def _replace(module: nn.Module, dtype: torch.dtype) -> None:
    for name, child in module.named_children():
        if name == "post_quant_conv":
            # Says what the network computes in; see `Network.embed`.
            continue
        setattr(module, name, _fast(child, dtype))
        _replace(getattr(module, name), dtype)


def _fast(layer: nn.Module, dtype: torch.dtype) -> nn.Module:
    match layer:
        case ResBlock():
            return FastResBlock(layer, dtype)
        case Patcher() if FastPatcher.takes(layer):
            return FastPatcher(layer, dtype)
        case Unpatcher() if FastUnpatcher.takes(layer):
            return FastUnpatcher(layer)
        case FrameNorm():
            return FastFrameNorm(layer)
        case SpatialAttention():
            return FastSpatialAttention(layer)
        case TemporalAttention():
            return FastTemporalAttention(layer)
        case TransformerLayer():
            return FastTransformerLayer(layer, dtype)
        case Downsample() if layer.temporal or layer.spatial:
            return FastDownsample(layer, dtype)
        case Upsample() if layer.temporal or layer.spatial:
            return FastUpsample(layer, dtype)
        case SpatialConv() if layer.conv3d.kernel_size == (1, 1, 1):
            return FastPointwise(layer, dtype)
        case nn.Sequential() if [type(part) for part in layer] == [SpatialConv, TemporalConv]:
            return FastConvolutions(layer, dtype)
        case _:
            return layer


class Recorded:
    """A function of tensors on a GPU, recorded as a CUDA graph for each shape of its arguments.

    Launching the kernels of a small network one by one takes longer than running them; a graph is
    one launch. Results are copied out of the graph's memory, so they stay what they are.

    Args:
        work: Takes and returns tensors, allocates nothing that outlives it, never waits.
        most: Shapes to remember; the one that was recorded first goes when there are more.
    """

    def __init__(self, work: Callable[..., tuple[Tensor, ...]], *, most: int = 4) -> None:
        self._work, self._most = work, most
        self._graphs: dict[tuple[torch.Size, ...], _Graph] = {}

    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        """What ``work`` returns.

        Raises:
            torch.cuda.OutOfMemoryError: If the shape is too large to be recorded.
        """
        key = tuple(argument.shape for argument in given)
        with torch.cuda.device(given[0].device):
            if key not in self._graphs:
                while len(self._graphs) >= self._most:
                    del self._graphs[next(iter(self._graphs))]
                self._graphs[key] = _Graph(self._work, given)
            return self._graphs[key].replay(given)


class _Graph:
    def __init__(self, work: Callable[..., tuple[Tensor, ...]], given: tuple[Tensor, ...]) -> None:
        self._given = tuple(argument.clone() for argument in given)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            # Lets libraries choose kernels and take workspaces, and ours be compiled.
            for _ in range(2):
                work(*self._given)
        torch.cuda.current_stream().wait_stream(stream)
        # What that took is of no use to the graph, which has memory of its own.
        torch.cuda.empty_cache()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._results = work(*self._given)

    def replay(self, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        for place, argument in zip(self._given, given, strict=True):
            place.copy_(argument, non_blocking=True)
        self._graph.replay()
        return tuple(result.clone() for result in self._results)
