"""A recipe: the network, the data and the stages of a training run, from one TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
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

    @property
    def is_perceptual(self) -> bool:
        """Whether a stage needs the weights of the perceptual loss."""
        return any(stage.perceptual_weight for stage in self.stages)

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
            network=_network(_table("network", document)) if "network" in document else None,
            data=_data(_table("data", document)),
            stages=_stages(document["stage"]),
        )
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _stages(tables: object) -> tuple[Stage, ...]:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ValueError("stage must be tables: [[stage]]")
    stages: list[Stage] = []
    for number, table in enumerate(tables, 1):
        try:
            stages.append(stage_from_dict(table))
        except ValueError as error:
            raise ValueError(f"stage {number}: {error}") from error
    return tuple(stages)


def _table(name: str, document: Mapping[str, Any]) -> dict[str, Any]:
    table = document.get(name, {})
    if not isinstance(table, dict):
        raise ValueError(f"{name} must be a table: [{name}]")
    return table


def _check_kinds(name: str, table: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse keys that have no default, and values of another kind than it."""
    unknown = sorted(set(table) - set(defaults))
    if unknown:
        raise ValueError(f"{name}: unknown keys {unknown}; known are {sorted(defaults)}")
    for key, value in table.items():
        wanted = _kind(defaults[key])
        if isinstance(defaults[key], float) and _is_whole(value):
            continue
        if _kind(value) != wanted:
            raise ValueError(f"{name}.{key} must be {wanted}, not {value!r}")


def _kind(value: object) -> str:
    match value:
        case bool():
            return "true or false"
        case int():
            return "a whole number"
        case float():
            return "a number"
        case str():
            return "a text"
        case list() | tuple():
            return "a list of whole numbers" if all(map(_is_whole, value)) else "another list"
        case _:
            return "a table"


def _is_whole(value: object) -> bool:
    return _kind(value) == "a whole number"


def _network(table: Mapping[str, Any]) -> TokenizerConfig:
    document, defaults = to_dict(mini()), asdict(mini())
    inner = table.get("transformer", {})
    _check_kinds("network", {k: v for k, v in table.items() if k != "transformer"}, defaults)
    if inner is not False:
        _check_kinds("network", {"transformer": inner}, defaults)
        _check_kinds("network.transformer", inner, defaults["transformer"])
    transformer = None if inner is False else {**document["transformer"], **inner}
    return from_dict({**document, **table, "transformer": transformer})


def _data(table: Mapping[str, Any]) -> DataOptions:
    _check_kinds("data", table, asdict(DataOptions()))
    if table.get("memory", "auto") not in ("auto", "always", "never"):
        raise ValueError(f"data.memory must be auto, always or never, not {table['memory']!r}")
    return DataOptions(**table)
