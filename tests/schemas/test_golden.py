"""Files of format version 1 as an earlier release wrote them: readable for ever."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from pipelines.row_checks import compare_rows
from schemas.manifest import ShardCommit, decode_manifest
from schemas.quarantine import decode_quarantine
from schemas.receipt_packs import ReopenedVideos, decode_pack
from schemas.receipts import VideoReceipt
from schemas.statistics import ElboStatistics
from schemas.tables import read_parquet
from schemas.tokens import TOKEN_SCHEMA, table_to_rows
from schemas.units import decode_unit
from schemas.webdataset import member_row

_SPEC = importlib.util.spec_from_file_location(
    "golden_objects", Path(__file__).parent / "golden_objects.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
objects = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(objects)


def _stored(name: str) -> bytes:
    return (objects.FOLDER / name).read_bytes()


# Parquet files carry the name of the library that wrote them: readable is all they must be.
@pytest.mark.parametrize("name", [name for name in objects.golden() if "parquet" not in name])
def test_the_bytes_written_have_not_changed(name: str):
    assert objects.golden()[name] == _stored(name)


def test_stored_documents_are_read():
    assert ElboStatistics.from_bytes(_stored("statistics.json")).windows == 2
    assert VideoReceipt.from_bytes(_stored("receipt.json")).stream_facts() == objects.FACTS
    counted = ElboStatistics.from_bytes(_stored("token_statistics.json")).token_bins
    assert counted is not None
    # A quarter of each window of 16, and the 12 dark tokens of the second one in the lowest bin.
    assert (counted.min_rate, counted.always, counted.tokens) == (0.25, 8, 32)
    assert counted.bins[0] == (0, 12 + 1)
    assert VideoReceipt.from_bytes(_stored("token_receipt.json")).token_bins is not None
    plain = VideoReceipt.from_bytes(_stored("published_receipt.json"))
    assert plain == VideoReceipt.from_bytes(_stored("receipt.json"))
    quarantined = VideoReceipt.from_bytes(_stored("quarantined.json"))
    assert quarantined.failure is not None
    commit = ShardCommit.from_bytes(_stored("commit.json"))
    assert commit.files == tuple(decode_manifest(_stored("manifest.parquet")))
    assert decode_quarantine(_stored("quarantine.parquet"))[0]["detail"] == "cut"


def test_packed_receipts_are_read():
    analysed, quarantined = decode_pack(_stored("receipts.parquet"))
    expected = VideoReceipt.from_bytes(_stored("receipt.json"))
    assert VideoReceipt.from_bytes(analysed.receipt) == expected
    assert (analysed.reason, quarantined.reason) == (None, "TRUNCATED")
    assert (analysed.units, quarantined.units) == (1, 0)
    assert ReopenedVideos.from_bytes(_stored("reopened.json")).videos == (objects.VIDEO,)


def test_a_stored_unit_is_read():
    (window,) = decode_unit(_stored("unit.parquet"))
    assert window.span == objects.WINDOW.span
    assert np.array_equal(window.codes, objects.WINDOW.codes)
    assert np.array_equal(window.information, objects.WINDOW.information)


def test_stored_rows_are_read_in_both_formats():
    table = read_parquet(_stored("tokens.parquet"), schema=TOKEN_SCHEMA, what="golden")
    assert compare_rows(table_to_rows(table)[0], objects.ROW) == []
    parts = ("json", "mask.npy", "tokens.npy")
    sample = member_row({part: _stored(f"sample.{part}") for part in parts})
    assert compare_rows(objects.ROW, sample) == []


def test_the_stored_row_is_the_one_worked_out_by_hand():
    row = objects.ROW
    # information = (7 k mod 16) / 64 >= 8/64 keeps every other position but in another order.
    kept = [k for k in range(16) if 7 * k % 16 >= 8]
    assert row["tokens"].tolist() == [4001 * k for k in kept]
    assert row["num_tokens"] == 8
    assert row["elbo"] == sum(range(16)) / 16 / 64
