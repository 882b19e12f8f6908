from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infotok_core.recipe import Stage, stage_from_dict, stage_to_dict

stages = st.builds(
    Stage,
    steps=st.integers(1, 1000),
    part=st.sampled_from(["all", "base", "compressor", "latent_router"]),
    router=st.sampled_from(["flex", "elbo", "static", "uniform"]),
    selection=st.sampled_from(["information", "r2l", "jump"]),
    rates=st.lists(st.floats(0.01, 1), min_size=1, max_size=4).map(tuple),
    mse_weight=st.floats(0, 2),
    zoom_share=st.floats(0, 1),
)


@given(stage=stages)
def test_a_stage_survives_being_written_down(stage: Stage):
    assert stage_from_dict(stage_to_dict(stage)) == stage


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"stepz": 3}, "stepz"),
        ({}, "steps"),
        ({"steps": 0}, "steps"),
        ({"steps": 1, "part": "head"}, "part"),
        ({"steps": 1, "router": "best"}, "router"),
        ({"steps": 1, "selection": "random"}, "selection"),
        ({"steps": 1, "rates": [0.5, 1.5]}, "rates"),
        ({"steps": 1, "rates": []}, "rates"),
        ({"steps": 1, "seam_weight": 0.1}, "seam_frames"),
        ({"steps": 1, "seam_weight": 0.1, "seam_frames": 17}, "seam_frames"),
        ({"steps": 1, "l1_weight": 0.0}, "loss weights"),
        ({"steps": 1, "rates": [4.0]}, "rates"),
        ({"steps": 1, "log_mse_weight": -1.0}, "loss weights"),
        ({"steps": 1, "part": "base", "latent_router_weight": 1.0}, "latent_router_weight"),
        ({"steps": 1, "ema_decay": 1.0}, "ema_decay"),
        ({"steps": 1, "seam_frames": -1}, "seam_frames"),
        ({"steps": 1, "min_rate": 0.0}, "min_rate"),
        ({"steps": 1, "frames": 0}, "frames"),
        ({"steps": 1, "learning_rate": 0}, "learning_rate"),
        ({"steps": 1, "learning_rate": math.nan}, "learning_rate must be a finite number"),
        ({"steps": 1, "learning_rate": math.inf}, "learning_rate must be a finite number"),
        ({"steps": 1, "l1_weight": math.nan}, "l1_weight must be a finite number"),
        ({"steps": 1, "zoom_max": math.nan}, "zoom_max must be a finite number"),
        ({"steps": 1, "router": "elbo", "rates": [math.inf]}, "rates must be finite"),
        # It would climb the loss, or stand still.
        ({"steps": 1, "clip_norm": -1.0}, "clip_norm must be a finite number above 0"),
        ({"steps": 1, "clip_norm": 0.0}, "clip_norm must be a finite number above 0"),
        ({"steps": 1, "weight_decay": -0.1}, "weight_decay must be at least 0"),
        ({"steps": 1, "warmup_steps": -1}, "warmup_steps must be at least 0"),
        ({"steps": 1, "final_learning_rate": -1.0}, "final_learning_rate must lie in"),
        ({"steps": 1, "final_learning_rate": 1.5}, "final_learning_rate must lie in"),
        ({"steps": 1, "seed": 1 << 64}, "seed must lie in"),
        # What TOML makes of a slip of the pen.
        ({"steps": 1, "rates": 0.5}, "rates must be a list of numbers"),
        ({"steps": 1, "rates": ["1"]}, "rates must be a list of numbers"),
        ({"steps": "many"}, "steps must be a whole number"),
        ({"steps": 1.5}, "steps must be a whole number"),
        ({"steps": 1, "crop": True}, "crop must be a whole number"),
        ({"steps": 1, "learning_rate": "fast"}, "learning_rate must be a number"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_name(values: dict[str, object], named: str):
    with pytest.raises(ValueError, match=named):
        stage_from_dict(values)


def test_a_clip_of_two_windows_is_as_long_as_both_less_their_overlap():
    assert Stage(steps=1, frames=9).clip_frames == 9
    assert Stage(steps=1, frames=9, seam_weight=0.1, seam_frames=3).clip_frames == 15
