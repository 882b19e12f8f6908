"""What a training run starts from: its network, and the weights of its perceptual loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from infotok_core.code_space import CodeSpaceNetwork
from infotok_core.code_space_files import holds_compressor, load_code_space
from infotok_core.config import mini
from infotok_core.errors import CheckpointError, WeightsError
from infotok_core.growing import start_as_identity
from infotok_core.network import Network, build_network
from infotok_core.programs import ProgramTokenizer
from infotok_core.warm_start import load_start
from pipelines.errors import PipelineError
from pipelines.training_recipe import Recipe

__all__ = ["first_network", "perceptual_loss"]


def first_network(
    recipe: Recipe, init: str | None, say: Callable[[str], None], *, base: str | None = None
) -> Network:
    """The network a run begins with: that of ``init``, made deeper if the recipe says so.

    Args:
        recipe: Its network is what ``init`` has to become.
        init: Any layout that `load_start` reads; None: new weights.
        say: Is told what was taken from ``init``.
        base: Directory of two programs that stay as they are, with a compressor on top; one that a
            run has written goes on from its compressor. Only the transformers of the recipe's
            network apply then.

    Raises:
        PipelineError: If ``init`` or ``base`` cannot be loaded or become the recipe's network.
    """
    if base is not None:
        return _network_on_base(recipe, base, say)
    wanted = recipe.network
    if init is None:
        network = build_network(wanted or mini(), seed=0)
        start_as_identity(network)
        return network
    try:
        start = load_start(init, wanted)
    except CheckpointError as error:
        raise PipelineError(f"tokenizer: {error}") from error
    except ValueError as error:
        raise PipelineError(f"{init} cannot become the recipe's network: {error}") from error
    say(f"starting from {init}: {start.how}")
    return start.network


def _network_on_base(recipe: Recipe, base: str, say: Callable[[str], None]) -> Network:
    inner = recipe.network.transformer if recipe.network else None
    if recipe.network is not None and inner is None:
        raise PipelineError("the recipe's network has no transformers to put on top of a base")
    try:
        if holds_compressor(Path(base)):
            network = load_code_space(base).network
            if inner not in (None, network.config.transformer):
                raise PipelineError(f"{base} has a compressor of another shape than the recipe's")
            say(f"starting from {base}: its programs and its compressor")
            return network
        inner = inner or mini().transformer
        assert inner is not None
        network = CodeSpaceNetwork(ProgramTokenizer.load(base), inner)
    except CheckpointError as error:
        raise PipelineError(f"tokenizer: {error}") from error
    except ValueError as error:
        raise PipelineError(f"{base} is no base for a compressor: {error}") from error
    gradient = "pixels have a gradient" if network.has_gradient else "codes alone have a gradient"
    say(f"starting from {base}: its programs ({gradient}), and transformers that change nothing")
    return network


def perceptual_loss(recipe: Recipe, weights: Path | None, device: torch.device) -> nn.Module | None:
    """The perceptual loss, if a stage asks for it.

    Raises:
        PipelineError: If its weights are not named or not those.
    """
    if not recipe.is_perceptual:
        return None
    if weights is None:
        raise PipelineError("the recipe has a perceptual_weight: name its weights (--perceptual)")
    from infotok_core.perceptual import PerceptualLoss

    try:
        return PerceptualLoss.load(weights).to(device)
    except WeightsError as error:
        raise PipelineError(str(error)) from error
