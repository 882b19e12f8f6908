"""How an evaluation says where it is, hours into one long video."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from evaluations import FRAMES, SIDE, write_evaluation_videos, write_small_checkpoint

from infotok_core.tokenizer import Tokenizer
from pipelines.config import RunConfig, SpaceConfig, WindowConfig
from pipelines.evaluation.analysis import analyse_clips
from pipelines.evaluation.clips import ClipSource
from pipelines.evaluation.settings import Clocks, EvaluationConfig
from pipelines.evaluation.visiting import visit_clips


@pytest.mark.parametrize(("seconds", "every_window"), [(60.0, True), (0.001, False)])
def test_a_long_video_is_not_worked_on_in_silence(
    tmp_path: Path, seconds: float, every_window: bool
):
    torch.set_num_threads(1)
    videos = write_evaluation_videos(tmp_path / "videos")
    tokenizer = Tokenizer.load(write_small_checkpoint(tmp_path / "checkpoint"))
    ticks = itertools.count()
    clocks = Clocks(wall=lambda: next(ticks) * seconds, cpu=lambda: 0.0)
    config = RunConfig(window=WindowConfig(frames=FRAMES), space=SpaceConfig(size=SIDE))
    lines: list[str] = []
    with ClipSource(str(videos / "moving.mp4"), config) as source:
        clips, _ = analyse_clips(
            source, tokenizer, EvaluationConfig(), clocks=clocks, say=lines.append
        )
        assert lines[-1] == "analysed 3 windows, the last of moving.mp4"
        assert ("analysed 1 windows, the last of moving.mp4" in lines) == every_window
        lines.clear()
        visit_clips(source, clips, lambda *_: None, clock=clocks.wall, say=lines.append)
    assert lines[-1].startswith("measured 3 of 3 windows")
    assert any(line.startswith("measured 1 of 3 windows") for line in lines) == every_window
