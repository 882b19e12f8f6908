"""What a training run says of itself."""

from __future__ import annotations

from infotok_core.recipe import Stage
from pipelines.training_log import progress_line, stage_line


def test_a_stage_is_told_by_its_main_choices_and_what_is_no_default():
    line = stage_line(Stage(steps=3, router="elbo", rates=(4.0, 0.5), seed=7))
    assert line == (
        "steps 3, frames 17, crop 128, batch_size 32, part all, router elbo, rates 4.0 0.5, "
        "selection information, seed 7"
    )


def test_slow_steps_are_told_in_seconds_and_without_metrics_there_are_none():
    stage = Stage(steps=100)
    assert progress_line(stage, 40, 0.25) == "step 40/100, 4.0 s a step, 4.0 min left"
    metrics = {"loss": 0.5, "l1": 0.25, "rate": 0.75}
    assert progress_line(stage, 40, 2.0, metrics) == (
        "step 40/100, loss 0.5000, L1 0.2500, rate 0.75, 2.0 steps/s, 0.5 min left"
    )
