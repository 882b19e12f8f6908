"""Batches that are too large for a GPU, and copies that overlap, on a real one."""

from __future__ import annotations

import gc
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from infotok_core.checkpoint import load_checkpoint
from infotok_core.tokenizer import Tokenizer
from pipelines.analyser import UnitAnalyser
from pipelines.pinned_upload import PinnedUpload
from pipelines.records import DecodedUnit
from schemas.windows import WindowSpan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]


def unit_of(number: int, *, seed: int) -> DecodedUnit:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (number, 33, 32, 32, 3), np.uint8)
    spans = tuple(
        WindowSpan(
            window_index=index, start_frame=33 * index, num_frames=33,
            start_time_s=float(index), end_time_s=index + 1.0,
        )
        for index in range(number)
    )  # fmt: skip
    return DecodedUnit(
        video=f"{seed:032x}", unit_index=0, path=f"units/{seed}", spans=spans,
        frames_NTHWC=small.repeat(8, axis=2).repeat(8, axis=3),
    )  # fmt: skip


@pytest.fixture
def little_memory():
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(4e9 / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_batch_that_does_not_fit_is_halved_until_it_does(little_memory, caplog):
    del little_memory
    units = [unit_of(3, seed=1), unit_of(6, seed=2)]
    tokenizer = Tokenizer(load_checkpoint("default"), device="cuda", dtype=torch.float16)
    analyser = UnitAnalyser(tokenizer, batch_size=64)
    with caplog.at_level(logging.WARNING):
        halved = [result.data for result in analyser.analyse(units)]
    sizes = [record.args[0] for record in caplog.records if "out of memory" in record.message]
    assert sizes
    assert sizes == [32 >> step for step in range(len(sizes))]
    # The size is remembered: nothing is tried that failed before.
    caplog.clear()
    assert [result.data for result in analyser.analyse(units)] == halved
    assert not caplog.records
    other = UnitAnalyser(tokenizer, batch_size=sizes[-1])
    assert [result.data for result in other.analyse(units)] == halved


def test_calls_at_the_same_time_give_the_bytes_of_one_after_another():
    units = [unit_of(number, seed=number) for number in (3, 1, 6, 2, 5, 4, 9, 2)]
    tokenizer = Tokenizer(load_checkpoint("default"), device="cuda", dtype=torch.float16)
    analyser = UnitAnalyser(tokenizer, batch_size=8)
    expected = [[result.data for result in analyser.analyse([unit])] for unit in units]
    shared = UnitAnalyser(tokenizer, batch_size=8)
    for _ in range(3):
        with ThreadPoolExecutor(4) as threads:
            found = threads.map(lambda unit: list(shared.analyse([unit])), units)
            assert [[result.data for result in results] for results in found] == expected


def test_uploads_in_flight_do_not_overwrite_each_other():
    upload = PinnedUpload(torch.device("cuda"))
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 256, (4, 33, 256, 256, 3), np.uint8) for _ in range(3)]
    there = [upload(list(batch)) for batch in batches * 4]
    for tensor, batch in zip(there, batches * 4, strict=True):
        assert torch.equal(tensor.cpu(), torch.from_numpy(batch))
    assert upload([batches[0][0]]).shape == (1, 33, 256, 256, 3)
