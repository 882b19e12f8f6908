"""Transformers and deeper networks that change nothing until they are trained."""

from __future__ import annotations

import torch
from torch import nn

from infotok_core.network import Network

__all__ = ["grow", "map_as_identity", "start_as_identity"]


@torch.no_grad()
def start_as_identity(network: Network) -> None:
    """Silence both transformers: each layer adds nothing until it has learned to.

    A base trained alone then goes on exactly where it was when they join in.
    """
    if network.config.transformer is None:
        return
    for stack in (network.vit_encoder, network.vit_decoder):
        _silence(stack)
    network.temporal_embed.zero_()


@torch.no_grad()
def map_as_identity(network: Network) -> None:
    """Where the transformers are wider than the latent: pad it with zeros, and cut them off."""
    for layer in (network.vit_conv, network.post_vit_conv) if network.config.transformer else ():
        if isinstance(layer, nn.Linear):
            nn.init.eye_(layer.weight)


def _silence(module: nn.Module) -> None:
    """Zero the last layer of every residual branch: a block then returns its input."""
    for name, parameter in module.named_parameters():
        if name.endswith(("out_proj.weight", "w2.weight")) or ".conv2.1." in f".{name}":
            parameter.zero_()


@torch.no_grad()
def grow(small: Network, large: Network) -> None:
    """Give a deeper network the function of a shallower one of the same widths.

    Blocks and layers that both have are copied; the further ones of ``large`` start as identity.
    A latent router of another width starts anew: it is no part of that function.

    Raises:
        ValueError: If a parameter of ``small`` has another shape in ``large``, or no place there.
    """
    given, taken = dict(small.named_parameters()), dict(large.named_parameters())
    if small.config.latent_router != large.config.latent_router:
        given = {n: p for n, p in given.items() if not n.startswith("information_head")}
    for name, values in given.items():
        place = taken.get(name)
        if place is None or place.shape != values.shape:
            raise ValueError(f"{name} {list(values.shape)} has no place in the larger network")
        place.copy_(values)
    new = {name for name in taken if name not in given and not name.startswith("information_head")}
    for prefix, module in large.named_modules():
        names = [f"{prefix}.{name}" for name, _ in module.named_parameters()]
        if names and new.issuperset(names):
            _silence(module)
