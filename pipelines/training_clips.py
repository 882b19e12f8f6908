"""The clips of a run's stages, and the clips it is measured on."""

from __future__ import annotations

import itertools
import os
from typing import Literal

import torch
from torch import Tensor

from infotok_core.clips import ClipSource
from infotok_core.recipe import Stage
from infotok_core.world import World
from pipelines.config import RunConfig, SpaceConfig, WindowConfig
from pipelines.errors import PipelineError
from pipelines.sources import Source
from pipelines.training_config import ClipsConfig
from pipelines.training_data import MemoryClips, decode_clips, open_clips
from pipelines.training_recipe import Recipe

__all__ = ["StageClips", "held_out_clips"]

_WINDOW_FRAMES = 33


class StageClips:
    """Opens the corpus once for all stages if it is held in memory, else once for each."""
