"""Decode tasks without Ray: what they send, and what they do without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from decoding_helpers import decode_here, request_for
from videos import write_video

from pipelines.config import RunConfig
from pipelines.records import DecodedUnit, Status, table_to_units
from pipelines.source_versions import stat_object
from pipelines.spreading import block_bytes, decode_tasks
from pipelines.stages import DecodeVideos, StageSpec
from pipelines.storage import Store
from pipelines.work import WorkFolder
from schemas.failures import FailureReason


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 windows of 9 frames: two units."""
    return write_video(tmp_path_factory.mktemp("videos") / "v.mp4", 176)


def sent_of(video: Path, work: Path, version: str | None = None) -> list[DecodedUnit | Status]:
    """What a decode task sends of a video, of the version planned: its own, unless given."""
    config = RunConfig.model_validate({"window": {"frames": 9}, "space": {"size": 64}})
    spec = StageSpec(
        config=config,
        source_root=str(video.parent),
        work=WorkFolder(store=Store(str(work)), analysis_key="a" * 64),
        run_id="run",
        device="cpu",
    )
    size, found = stat_object(Store(str(video.parent)), str(video))
    row = {"uri": video.name, "video_id": "0" * 32, "size": size, "version": version or found}
    batch = pa.Table.from_pylist([{**row, "block": 0, "stored_units": []}])
    return [item for table in DecodeVideos(spec)(batch) for item in table_to_units(table)]


def test_a_video_that_was_overwritten_with_as_many_bytes_is_noticed(tmp_path: Path):
    path = write_video(tmp_path / "v.mp4", 9)
    _, planned = stat_object(Store(str(tmp_path)), str(path))
    os.utime(path, (1, 1))
    [end] = sent_of(path, tmp_path / "work", planned)
    assert isinstance(end, Status)
    failure = end.payload["failure"]
    assert failure["reason"] == FailureReason.SOURCE_CHANGED
    assert f"planned version {planned}, found" in failure["detail"]


def test_units_hold_the_windows_of_the_decoder_side_by_side(video: Path, tmp_path: Path):
    sent = sent_of(video, tmp_path)
    units = [item for item in sent if isinstance(item, DecodedUnit)]
    assert [len(unit.spans) for unit in units] == [16, 4]
    assert isinstance(sent[-1], Status)
    assert sent[-1].kind == "end"
    expected, _ = decode_here(request_for(video))
    assert [span for unit in units for span in unit.spans] == [w.span for w in expected]
    frames = np.concatenate([unit.frames_NTHWC for unit in units])
    assert np.array_equal(frames, np.stack([window.frames_THWC for window in expected]))


def test_a_decode_task_needs_no_torch():
    # 2 CPU-seconds and 200 MB in each of their workers.
    program = "import sys, pipelines.stages; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


def plan_row(number: int, size: int, *, block: int = 0) -> dict[str, Any]:
    return {
        "uri": str(number), "video_id": f"{number:032x}", "size": size, "version": "1",
        "block": block, "stored_units": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("num_videos", "num_decoders", "most"), [(11, 2, 1), (64, 2, 4), (4096, 2, 16), (4096, 999, 1)]
)
def test_tasks_are_large_where_there_are_enough_for_every_decoder(
    num_videos: int, num_decoders: int, most: int
):
    rows = [plan_row(n, 1000) for n in range(num_videos)]
    tasks = list(decode_tasks(rows, num_decoders))
    assert max(task.num_rows for task in tasks) == most
    assert [uri for task in tasks for uri in task["uri"].to_pylist()] == [r["uri"] for r in rows]


def test_a_large_video_is_a_task_of_its_own():
    rows = [plan_row(n, size) for n, size in enumerate([1, 1, 200 << 20, 1, 1] * 10)]
    sizes = [sum(task["size"].to_pylist()) for task in decode_tasks(rows, 1)]
    assert max(sizes) == 200 << 20


def test_the_largest_videos_of_a_block_come_first_and_blocks_in_their_order():
    rows = [plan_row(n, (n * 37) % 11, block=n // 20) for n in range(60)]
    given = [uri for task in decode_tasks(rows, 2) for uri in task["uri"].to_pylist()]
    assert sorted(given) == sorted(row["uri"] for row in rows)
    sizes = [rows[int(uri)]["size"] for uri in given]
    for block in range(3):
        part = slice(20 * block, 20 * block + 20)
        assert {rows[int(uri)]["block"] for uri in given[part]} == {block}
        assert sizes[part] == sorted(sizes[part], reverse=True)


def test_a_block_holds_a_unit_where_that_is_neither_tiny_nor_huge():
    def block(size: int, frames: int) -> int:
        document = {"window": {"frames": frames}, "space": {"size": size}}
        return block_bytes(RunConfig.model_validate(document))

    assert block(64, 17) == 16 << 20
    assert block(160, 33) == 16 * 33 * 160 * 160 * 3
    assert block(256, 33) == 64 << 20
