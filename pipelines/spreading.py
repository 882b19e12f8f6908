"""How pass one is spread over a cluster: videos per task, frames per block, actors.

None of it changes a byte of the output.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray

from pipelines.config import RunConfig
from pipelines.stages import StageSpec
from schemas.ids import WINDOWS_PER_UNIT

__all__ = [
    "block_bytes",
    "cpu_actors",
    "decode_tasks",
    "num_actors",
    "num_decoders",
    "window_bytes",
]

_TASK_VIDEOS = 16
_TASK_BYTES = 64 << 20
_TASKS_PER_DECODER = 8
"""At least, in a wave that has so many videos: tasks differ in length, and the last should be
short."""
_BLOCK_BYTES = (16 << 20, 64 << 20)
"""Of frames on their way to an actor, least and most. A block costs the driver and the workers some
50 CPU-ms; but what an actor made of one is heard of when all of it is done."""


def num_actors(spec: StageSpec) -> int:
    """Tokenizer actors: as configured, else some per GPU, or one per ``cpu_threads`` CPUs."""
    if spec.config.runtime.actors is not None:
        return spec.config.runtime.actors
    resources = ray.cluster_resources()
    if spec.device == "cuda":
        return max(1, int(resources.get("GPU", 0))) * spec.config.runtime.actors_per_gpu
    return cpu_actors(int(resources.get("CPU", 1)), spec.config)


def cpu_actors(cpus: int, config: RunConfig) -> int:
    """Tokenizer actors that so many CPUs keep busy."""
    return max(1, cpus // config.tokenizer.cpu_threads)


def window_bytes(config: RunConfig) -> int:
    """Of a window's frames."""
    return config.window.frames * config.space.size**2 * 3


def block_bytes(config: RunConfig) -> int:
    """As much as a unit, within limits: 16 windows at 256x256 are 104 MB, whatever is said here."""
    least, most = _BLOCK_BYTES
    return min(max(WINDOWS_PER_UNIT * window_bytes(config), least), most)


def num_decoders(spec: StageSpec) -> int:
    """Decode tasks that run at a time."""
    return spec.config.runtime.decoders or max(1, int(ray.cluster_resources().get("CPU", 1)))


def decode_tasks(rows: Sequence[dict[str, Any]], num_decoders: int) -> Iterator[pa.Table]:
    """Videos per decode task: few enough to spread, enough to hide the cost of a task.

    The largest of a block come first: what is begun last must not keep everyone waiting.
    """
    schema = pa.schema(
        [
            ("uri", pa.string()),
            ("video_id", pa.string()),
            ("size", pa.int64()),
            ("version", pa.string()),
            ("block", pa.int32()),
            ("stored_units", pa.list_(pa.int32())),
        ]
    )
    most = min(max(len(rows) // (_TASKS_PER_DECODER * num_decoders), 1), _TASK_VIDEOS)
    task: list[dict[str, Any]] = []
    filled = 0
    for row in sorted(rows, key=lambda row: (row["block"], -row["size"])):
        if task and (len(task) >= most or filled + row["size"] > _TASK_BYTES):
            yield pa.Table.from_pylist(task, schema=schema)
            task, filled = [], 0
        task.append(row)
        filled += row["size"]
    if task:
        yield pa.Table.from_pylist(task, schema=schema)
