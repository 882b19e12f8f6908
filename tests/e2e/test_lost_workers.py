"""Videos that end their workers, and workers that never come: one Ray for all of it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray.data
from runs import (
    REPOSITORY,
    DeadlyStore,
    FailingStore,
    load_deadly,
    load_haunted,
    load_never,
    load_sleeping,
)
from videos import numbered_frame, write_video
from work_folders import analysed, video, write

from benchmarks.processes import descendants
from jobs.config import load_config
from jobs.engine import engine
from pipelines.analyse import analyse, analyse_again
from pipelines.analyser import VideoTokenizer
from pipelines.config import RunConfig
from pipelines.errors import PipelineError, StalledError
from pipelines.observe import Progress, RunControl
from pipelines.plan import Plan, ensure_plan
from pipelines.ray_stream import StreamEndedError, poll
from pipelines.receipt_store import ReceiptStore
from pipelines.sources import open_source
from pipelines.stages import DecodeVideos, StageSpec
from pipelines.storage import Store
from pipelines.tokenise import tokenise
from pipelines.tokenizer_actor import load_tokenizer
from pipelines.work import WorkFolder
from schemas.failures import FailureReason
from schemas.ids import video_id
from schemas.receipts import VideoReceipt

pytestmark = pytest.mark.ray

Load = Callable[[RunConfig, str], VideoTokenizer]


@pytest.fixture(scope="module")
def control() -> Iterator[RunControl]:
    with pytest.MonkeyPatch.context() as patch:
        # Ray's workers import the tokenizers of `runs` by name.
        folders = (Path(__file__).parent, REPOSITORY)
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, folders)))
        with engine() as control:
            yield control


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four harmless ones, a white and a black one between them."""
    folder = tmp_path_factory.mktemp("videos")
    for name in ("a", "b", "d", "f"):
        write_video(folder / f"{name}.mp4", [numbered_frame(n) for n in range(12)])
    for name, level in (("c-white", 255), ("e-black", 0)):
        write_video(folder / f"{name}.mp4", [np.full((64, 64, 3), level, np.uint8)] * 12)
    return folder


@dataclass(kw_only=True)
class Work:
    """Pass one over `videos` with a tokenizer of the test's choice."""

    plan: Plan
    spec: StageSpec
    progress: Progress
    lines: list[str] = field(default_factory=list)

    def run(self) -> dict[str, VideoReceipt]:
        analyse(self.plan, self.spec, self.progress)
        return self.receipts()

    def receipts(self) -> dict[str, VideoReceipt]:
        found = {}
        for row in self.plan.rows():
            with contextlib.suppress(FileNotFoundError):
                [receipt] = ReceiptStore(self.plan, self.spec.work.store).read([row])
                found[receipt.uri] = receipt
        return found


def make_work(
    folder: Path,
    videos: Path,
    checkpoint: Path,
    control: RunControl,
    load: Load,
    *settings: str,
    run_id: str = "run",
) -> Work:
    small = ["space.size=32", "window.frames=9", "tokenizer.cpu_threads=1", "runtime.actors=1"]
    overrides = {"tokenizer.checkpoint": str(checkpoint)}
    config = load_config(None, [*small, *settings], overrides)
    source = open_source(str(videos), config.source, config.source_storage)
    store = Store(str(folder))
    plan = ensure_plan(source, config, tokenizer="t" * 64, work=store)
    spec = StageSpec(
        config=config,
        source_root=plan.head.source_root,
        work=WorkFolder(store=store, analysis_key="k"),
        run_id=run_id,
        device="cpu",
        load=load,
    )
    progress = Progress(
        control=control,
        stage="analyse",
        total=plan.head.videos,
        total_bytes=plan.head.num_bytes,
        interval_s=1,
        watchdog_s=config.runtime.watchdog_s,
    )
    return Work(plan=plan, spec=spec, progress=progress)


def reasons(receipts: dict[str, VideoReceipt]) -> dict[str, FailureReason | None]:
    return {uri: r.failure.reason if r.failure else None for uri, r in receipts.items()}


def test_a_unit_that_ends_every_actor_is_set_aside_and_costs_no_other_video(
    control: RunControl, videos: Path, checkpoint: Path, tmp_path: Path
) -> None:
    # All six units in one call: what they share must not be what they are judged by.
    settings = ("limits.attempts=2", "runtime.units_per_call=8", "runtime.decoders=1")
    work = make_work(tmp_path, videos, checkpoint, control, load_haunted, *settings)
    found = work.run()
    assert reasons(found) == {
        "a.mp4": None,
        "b.mp4": None,
        "c-white.mp4": FailureReason.WORKER_LOST,
        "d.mp4": None,
        "e-black.mp4": FailureReason.INTERNAL,
        "f.mp4": None,
    }
    for uri, said in {"c-white.mp4": "died 2 times", "e-black.mp4": "not a colour"}.items():
        failure = found[uri].failure
        assert failure is not None
        assert said in failure.detail


def test_a_video_that_ends_every_worker_when_it_is_recomputed_is_named(
    control: RunControl, videos: Path, checkpoint: Path, tmp_path: Path
) -> None:
    settings = ("limits.attempts=1", "runtime.units_per_call=8", "runtime.decoders=1")
    work = make_work(tmp_path, videos, checkpoint, control, load_tokenizer, *settings)
    work.spec = replace(work.spec, keep_units=False)
    assert set(reasons(work.run()).values()) == {None}
    again = replace(work.spec, load=load_haunted, run_id="again")
    # Black is harmless here: it is not among them.
    rows = [row for row in work.plan.rows() if row["uri"] != "e-black.mp4"]
    said = "c-white.mp4 could not be analysed again: WORKER_LOST, workers died 1 times"
    with pytest.raises(PipelineError, match=said):
        analyse_again(work.plan, rows, again, work.progress)


def test_a_video_whose_decoding_ends_the_worker_is_set_aside(
    control: RunControl, videos: Path, checkpoint: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("a.mp4", "d.mp4"):
        shutil.copy2(videos / name, source)
    # Long enough to be killed before it is through.
    write_video(source / "b.mp4", 1500)
    settings = ("limits.attempts=2", "runtime.decoders=1")
    folder = tmp_path / "work"
    work = make_work(folder, source, checkpoint, control, load_tokenizer, *settings)
    with _killing_the_decoder_of(video_id("b.mp4"), folder) as starts:
        found = work.run()
    assert starts == ["run-1", "run-2"]
    assert reasons(found) == {"a.mp4": None, "b.mp4": FailureReason.WORKER_LOST, "d.mp4": None}


def test_a_cluster_that_cannot_start_the_tokenizer_fails_the_run_and_no_video(
    control: RunControl, videos: Path, checkpoint: Path, tmp_path: Path
) -> None:
    settings = ("limits.attempts=1",)
    work = make_work(tmp_path, videos, checkpoint, control, load_never, *settings)
    with pytest.raises(PipelineError, match="no weights for"):
        work.run()
    assert work.receipts() == {}


def test_a_tokenizer_whose_loading_ends_every_actor_fails_the_run_and_no_video(
    control: RunControl, videos: Path, checkpoint: Path, tmp_path: Path
) -> None:
    settings = ("limits.attempts=1", "runtime.watchdog_s=60")
    work = make_work(tmp_path, videos, checkpoint, control, load_deadly, *settings)
    with pytest.raises(PipelineError, match=r"ended its process 1 times.* while it was loaded"):
        work.run()
    assert work.receipts() == {}


def test_videos_that_are_replayed_time_and_again_do_not_run_out_of_starts(
    control: RunControl, videos: Path, checkpoint: Path, tmp_path: Path
) -> None:
    settings = ("limits.attempts=2",)
    work = make_work(tmp_path, videos, checkpoint, control, load_tokenizer, *settings)
    rows = [{**row, "stored_units": []} for row in work.plan.rows()][:2]
    once, *others = [_decoded(work.spec, rows) for _ in range(6)]
    assert all(other == once for other in others)


def test_the_watchdog_says_where_a_stuck_run_stands(
    control: RunControl, videos: Path, checkpoint: Path, tmp_path: Path
) -> None:
    settings = ("runtime.watchdog_s=5",)
    work = make_work(tmp_path, videos, checkpoint, control, load_sleeping, *settings)
    said = r"no progress for \d+s; last stand: analyse \d/6 videos"
    with pytest.raises(StalledError, match=said) as stalled:
        work.run()
    assert stalled.value.exit_code == 5


def _decoded(spec: StageSpec, rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    tables = DecodeVideos(spec)(pa.Table.from_pylist(rows))
    return [(t["kind"][0].as_py(), t["video_id"][0].as_py()) for t in tables]


@contextlib.contextmanager
def _killing_the_decoder_of(video: str, work: Path) -> Generator[list[str]]:
    """SIGKILL to the Ray worker each time it has noted that it begins with ``video``.

    A worker that has just finished with another video may be hit as well, and is run again.
    """
    killed: list[str] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            starts = {path.name for path in (work / "attempts/000000" / video).glob("run-*")}
            for start in starts - set(killed):
                for pid in descendants(os.getpid(), "task"):
                    os.kill(pid, signal.SIGKILL)
                killed.append(start)
            time.sleep(0.005)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def test_a_shard_that_ends_every_worker_is_named_and_costs_no_other_shard(
    control: RunControl, tmp_path: Path
):
    names = ("a.mp4", "b.mp4", "c.mp4")
    videos = {name: video(seed, 2) for seed, name in enumerate(names)}
    done = analysed(tmp_path / "work", videos, shard_source_bytes=1000)
    expected = write(done.spec(tmp_path / "undisturbed"))
    spec = done.spec(tmp_path / "out")
    with pytest.raises(PipelineError) as caught:
        tokenise(replace(spec, output=DeadlyStore(spec.output.url)), shards_of(control, 3))
    said = str(caught.value)
    assert said.startswith(
        "shard 1 ended its worker process 3 times (limits.attempts), last while writing part 0: "
    )
    assert len(said.splitlines()) == 1
    assert list(spec.work.store.entries(spec.commits)[1]) == ["000000.json", "000002.json"]
    # As the next start does, when what was wrong is mended.
    control = replace(control, run_id="next")
    tokenise(spec, shards_of(control, 3))
    files = [file for commit in expected for file in commit.files]
    assert {file.path: file.sha256 for file in files} == {
        f"data/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (tmp_path / "out" / "data").iterdir()
    }


def shards_of(control: RunControl, total: int) -> Progress:
    return Progress(
        control=control, stage="tokenise", total=total, total_bytes=0, interval_s=1e9,
        watchdog_s=60,
    )  # fmt: skip


def test_shards_that_fail_in_every_round_are_told_with_the_last_error(
    control: RunControl, tmp_path: Path
):
    done = analysed(tmp_path / "work", {"a.mp4": video(1, 1)})
    spec = replace(done.spec(tmp_path / "out"), output=FailingStore(str(tmp_path / "out")))
    with pytest.raises(PipelineError) as caught:
        tokenise(spec, shards_of(control, 1))
    assert str(caught.value) == (
        "1 shards could not be written in 3 rounds (first: 0); the last one ended with: "
        f"ArithmeticError: data/train-000000-00.parquet is too odd for {tmp_path}/out"
    )


def test_a_task_that_fails_between_its_rows_is_told_without_the_advice_of_ray(control: RunControl):
    def refused(batch: pa.Table) -> Iterator[pa.Table]:
        raise PermissionError("s3://b/units/x: Access Denied")
        yield batch

    dataset = ray.data.from_arrow([pa.table({"x": [1]})]).map_batches(
        refused,  # pyright: ignore[reportArgumentType]
        batch_format="pyarrow",
    )
    progress = shards_of(control, 1)
    progress.start()
    with pytest.raises(StreamEndedError, match=r"^PermissionError: s3://b/units/x: Access Denied$"):
        list(poll(dataset, progress))
