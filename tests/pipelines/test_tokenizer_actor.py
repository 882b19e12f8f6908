"""The tokenizer actor without Ray: many calls at once, and who is alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from threading import Event

import pyarrow as pa
import pytest
import torch
from torch import Tensor
from units import CountingTokenizer, frames, make_tokenizer, unit_of

from infotok_core.tokenizer import Analysis
from pipelines.analyser import UnitAnalyser, VideoTokenizer
from pipelines.config import RunConfig
from pipelines.records import DecodedUnit, Status, table_to_statuses, unit_to_table
from pipelines.stages import StageSpec
from pipelines.storage import Store
from pipelines.tokenizer_actor import AnalyseUnits
from pipelines.work import WorkFolder

UNITS = [unit_of([frames(n), frames(n + 50)], index=n) for n in range(12)]


class GatedTokenizer(CountingTokenizer):
    """Says when it is busy, and stays so until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.busy, self.go_on = Event(), Event()

    def analyse(self, video_u8_BTHWC: Tensor, /) -> Analysis:
        self.busy.set()
        assert self.go_on.wait(30)
        return super().analyse(video_u8_BTHWC)


def actor(folder: Path, tokenizer: VideoTokenizer) -> AnalyseUnits:
    spec = StageSpec(
        config=RunConfig(), source_root="", run_id="run", device="cuda",
        work=WorkFolder(store=Store(str(folder)), analysis_key="a" * 64),
        load=lambda config, device: tokenizer,
    )  # fmt: skip
    return AnalyseUnits(spec)


def table(units: Sequence[DecodedUnit]) -> pa.Table:
    return pa.concat_tables(map(unit_to_table, units))


def call(actor: AnalyseUnits, units: Sequence[DecodedUnit]) -> list[Status]:
    return [status for rows in actor(table(units)) for status in table_to_statuses(rows)]


def test_calls_at_the_same_time_store_what_one_after_another_would(tmp_path: Path):
    torch.set_num_threads(1)
    tokenizer = make_tokenizer()
    shared = actor(tmp_path, tokenizer)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda n: call(shared, UNITS[n : n + 3]), range(0, 12, 3)))
    expected = UnitAnalyser(tokenizer, batch_size=1).analyse(UNITS)
    for status, result in zip(chain(*answers), expected, strict=True):
        assert (tmp_path / result.unit.path).read_bytes() == result.data
        assert status.video == result.unit.video
        assert status.payload["entry"]["sha256"] == hashlib.sha256(result.data).hexdigest()


def test_a_unit_whose_actor_died_waits_until_it_is_alone(tmp_path: Path):
    tokenizer = GatedTokenizer()
    shared = actor(tmp_path, tokenizer)
    # As an actor did that died.
    assert shared._claim(UNITS[1], limit=1) == 1
    starts = list((tmp_path / "attempts").rglob("run-*"))
    with ThreadPoolExecutor(2) as threads:
        healthy = threads.submit(call, shared, UNITS[:1])
        assert tokenizer.busy.wait(30)
        again = threads.submit(call, shared, UNITS[1:2])
        with pytest.raises(TimeoutError):
            again.result(0.3)
        # Its second start is not noted as long as another unit could end the process.
        assert list(starts[0].parent.iterdir()) == starts
        tokenizer.go_on.set()
        [first], [second] = healthy.result(), again.result()
    assert (first.video, second.video) == (UNITS[0].video, UNITS[1].video)
    assert "entry" in second.payload
    assert len(tokenizer.batches) == 2
    assert not list(starts[0].parent.iterdir())
