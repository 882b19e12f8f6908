"""A recipe: the network, the data and the stages of a training run, from one TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from infotok_core.config import TokenizerConfig, from_dict, mini, to_dict
from infotok_core.recipe import Stage, stage_from_dict, stage_to_dict

__all__ = ["DataOptions", "Recipe", "load_recipe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOptions:
    """How clips are taken from the corpus; see `pipelines.training_config.ClipsConfig`."""

    size: int = 256
    """Short side that videos are scaled to before they are cropped."""
    memory: Literal["auto", "always", "never"] = "auto"
    """Decode the corpus once and hold it on the device, or stream it."""
    source_share: float = 0.1
    """Streaming: share of clips cut straight from the source's own resolution."""
    num_lanes: int = 16
    block_videos: int = 8
    windows_per_visit: int = 4
    crops_per_window: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What decides the outcome of a run, together with its videos and what it starts from."""

    network: TokenizerConfig | None
    """None: that of the checkpoint the run starts from."""
    data: DataOptions
    stages: tuple[Stage, ...]

    def document(self) -> dict[str, Any]:
        """Plain data, stored beside the weights and compared on resume."""
        return {
            "network": None if self.network is None else to_dict(self.network),
            "data": {field.name: getattr(self.data, field.name) for field in fields(self.data)},
            "stages": [stage_to_dict(stage) for stage in self.stages],
        }


def load_recipe(path: Path) -> Recipe:
    """Read a recipe; examples/train.toml shows every table.

    ``[network]`` holds what differs from the mini network; without it the run takes the network of
    the checkpoint it starts from, or the mini network.

    Raises:
        ValueError: Naming the file and the key that is wrong.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        unknown = sorted(set(document) - {"network", "data", "stage"})
        if unknown:
            raise ValueError(f"unknown tables {unknown}; known are network, data, [[stage]]")
        if not document.get("stage"):
            raise ValueError("there is no [[stage]]")
        return Recipe(
            network=_network(document["network"]) if "network" in document else None,
            data=_data(document.get("data", {})),
            stages=tuple(stage_from_dict(table) for table in document["stage"]),
        )
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _network(table: Mapping[str, Any]) -> TokenizerConfig:
    document = to_dict(mini())
    inner = table.get("transformer", {})
    transformer = None if inner is False else {**document["transformer"], **inner}
    return from_dict({**document, **table, "transformer": transformer})


def _data(table: Mapping[str, Any]) -> DataOptions:
    known = {field.name for field in fields(DataOptions)}
    unknown = sorted(set(table) - known)
    if unknown:
        raise ValueError(f"data: unknown keys {unknown}; known are {sorted(known)}")
    if table.get("memory", "auto") not in ("auto", "always", "never"):
        raise ValueError(f"data.memory must be auto, always or never, not {table['memory']!r}")
    return DataOptions(**table)
