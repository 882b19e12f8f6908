"""SSIM beside the network: the same bits from any number of workers, and errors with a name."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from evaluations import FRAMES, SIDE, write_evaluation_videos, write_small_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from infotok_core.tokenizer import Tokenizer
from pipelines.child import Child
from pipelines.config import RunConfig, SpaceConfig, WindowConfig
from pipelines.errors import PipelineError
from pipelines.evaluation.clips import ClipSource
from pipelines.evaluation.evaluate import evaluate
from pipelines.evaluation.measuring import Metrics
from pipelines.evaluation.settings import Clocks, EvaluationConfig
from pipelines.evaluation.ssim_pool import SsimPool
from pipelines.metrics import ssim
from schemas.evaluation import ClipReport

RUN = RunConfig(window=WindowConfig(frames=FRAMES), space=SpaceConfig(size=SIDE))
CLOCKS = Clocks(wall=time.perf_counter, cpu=time.process_time)


def videos(seed: int, frames: int, side: int = 16) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    source, noise = rng.integers(0, 256, (2, frames, side, side, 3))
    return source.astype(np.uint8), ((source + noise // 4) % 256).astype(np.uint8)


@pytest.fixture(scope="module")
def pool():
    with SsimPool(2, time.monotonic) as pool:
        yield pool


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 34), min_size=1, max_size=6))
def test_many_at_once_are_what_each_is_alone_bit_by_bit(pool: SsimPool, lengths: list[int]):
    pairs = [videos(seed, frames) for seed, frames in enumerate(lengths)]
    found = [pool.submit("clip", *pair) for pair in pairs]
    # Asked for in another order than they were made.
    results = [similarity.result() for similarity in reversed(found)][::-1]
    assert results == [ssim(*pair) for pair in pairs]
    with SsimPool(0, time.monotonic) as alone:
        assert results == [alone.submit("clip", *pair).result() for pair in pairs]


def test_what_is_too_small_to_compare_has_no_ssim(pool: SsimPool):
    assert pool.submit("clip", *videos(0, 3, side=6)).result() is None


def test_no_more_than_a_few_decodes_wait_for_a_worker():
    source, other = videos(0, 8)
    found = []
    with SsimPool(1, time.monotonic) as pool:
        pool.submit("clip", source, other).result()
        os.kill(pool.pids[0], signal.SIGSTOP)
        giver = threading.Thread(
            target=lambda: found.extend(pool.submit("clip", source, other) for _ in range(4))
        )
        giver.start()
        giver.join(0.5)
        assert giver.is_alive()
        os.kill(pool.pids[0], signal.SIGCONT)
        giver.join(30)
        assert [similarity.result() for similarity in found] == [ssim(source, other)] * 4


def test_a_worker_that_dies_ends_the_evaluation_with_the_name_of_the_clip():
    with SsimPool(1, time.monotonic) as pool:
        pool.submit("first", *videos(0, 3)).result()
        os.kill(pool.pids[0], signal.SIGKILL)
        broken = pool.submit("a.mp4, window 7", *videos(1, 3))
        with pytest.raises(PipelineError, match=r"a\.mp4, window 7: SSIM .* signal SIGKILL"):
            broken.result()
        # And whoever goes on is told.
        with pytest.raises(PipelineError, match=r"a\.mp4, window 7"):
            pool.submit("last", *videos(2, 3))


def test_a_worker_says_what_it_cannot_compare_and_goes_on():
    child = Child("pipelines.evaluation.ssim_worker", time.monotonic, startup_s=60)
    source, other = videos(0, 3)
    try:
        child.memory.resize(source.shape, 2)
        child.memory.attach(source.shape, 2)
        for slot, video in zip(child.memory.slots, (source, other), strict=True):
            slot[:] = video
        child.send({"kind": "pair", "shape": source.shape, "frames": 0})
        answer = child.receive(30)
        assert answer["kind"] == "fail"
        assert "not two equally long videos" in answer["detail"]
        child.send({"kind": "pair", "shape": source.shape, "frames": 3})
        assert np.mean(child.receive(30)["values"]) == pytest.approx(ssim(source, other))
    finally:
        child.kill()


def test_no_process_is_left_behind():
    with SsimPool(1, time.monotonic) as pool:
        pool.submit("clip", *videos(0, 3)).result()
        (pid,) = pool.pids
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()


def test_an_evaluation_with_workers_is_the_one_without(tmp_path: Path):
    folder = write_evaluation_videos(tmp_path / "videos")
    tokenizer = Tokenizer.load(write_small_checkpoint(tmp_path / "checkpoint"))
    config = EvaluationConfig(rates=(1.0, 0.5), sweep="full", grid_points=4, max_windows=4)

    def measure(workers: int) -> tuple[ClipReport, ...]:
        with ClipSource(str(folder), RUN) as source:
            return evaluate(
                source, tokenizer, config, metrics=Metrics(), workers=workers, clocks=CLOCKS,
                say=lambda line: None,
            ).clips  # fmt: skip

    def numbers(clips: tuple[ClipReport, ...]) -> list[tuple]:
        return [
            (clip.source, clip.window_index, point.selection, point.num_tokens, point.psnr_db,
             point.psnr_frames_db, point.ssim, point.squared_error)
            for clip in clips
            for point in clip.points
        ]  # fmt: skip

    alone, together = measure(0), measure(3)
    assert numbers(alone) == numbers(together)
    assert any(point.ssim is not None for clip in alone for point in clip.points)
