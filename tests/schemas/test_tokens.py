from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import FACTS, TOKENIZER, analysis, token_rows

from schemas.ids import video_id
from schemas.tokens import (
    TOKEN_SCHEMA,
    bpp16,
    pack_mask,
    rows_to_table,
    table_to_rows,
    token_row,
    unpack_mask,
)

shapes = hnp.array_shapes(min_dims=3, max_dims=3, max_side=6)
masks = hnp.arrays(np.bool_, shapes)

# The contract, column by column: nothing here may change within a format version.
CONTRACT = """
clip_id: string not null
tokens: list<element: uint16 not null> not null
mask: binary not null
num_tokens: int32 not null
frame_token_counts: list<element: uint16 not null> not null
grid_t: int16 not null
grid_h: int16 not null
grid_w: int16 not null
rate_target: float not null
rate: float not null
elbo: float not null
frame_elbo: list<element: float not null> not null
source: string not null
video_id: string not null
window_index: int32 not null
start_time_s: double not null
end_time_s: double not null
start_frame: int64 not null
num_frames: int32 not null
fps: float not null
source_fps: float
width: int16 not null
height: int16 not null
source_width: int32 not null
source_height: int32 not null
tokenizer: string not null
""".strip().splitlines()


def _row(mask: np.ndarray, **change: Any) -> dict[str, Any]:
    window = analysis(1, shape=mask.shape)
    arguments = {
        "facts": FACTS,
        "video": video_id("a.mp4"),
        "source": "a.mp4",
        "tokenizer": TOKENIZER,
        "rate_target": 0.5,
        **change,
    }
    return token_row(window, mask, **arguments)


def equal_rows(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(
        np.array_equal(first[name], second[name]) for name in first
    )


def test_the_columns_are_those_of_the_contract():
    columns = [
        f"{field.name}: {field.type}{'' if field.nullable else ' not null'}"
        for field in TOKEN_SCHEMA
    ]
    assert columns == CONTRACT
    assert all(field.metadata[b"meaning"] for field in TOKEN_SCHEMA)


@given(masks)
def test_a_mask_survives_packing(mask: np.ndarray):
    data = pack_mask(mask)
    assert len(data) == math.ceil(mask.size / 8)
    assert np.array_equal(unpack_mask(data, mask.shape), mask)


def test_the_first_position_is_the_highest_bit():
    mask = np.zeros((1, 1, 9), bool)
    mask[0, 0, [0, 8]] = True
    assert pack_mask(mask) == b"\x80\x80"


def test_packed_bytes_that_do_not_fit_the_grid_are_refused():
    for data in (b"\x80", b"\x80\x80\x00", b"\x80\x81"):
        with pytest.raises(ValueError, match="does not fit"):
            unpack_mask(data, (1, 1, 9))


def test_packing_refuses_numbers():
    with pytest.raises(ValueError, match="uint8"):
        pack_mask(np.full((1, 1, 8), 2, np.uint8))


@given(masks.filter(np.any))
def test_a_row_tells_of_its_window_and_mask(mask: np.ndarray):
    row = _row(mask)
    window = analysis(1, shape=mask.shape)
    full = np.zeros(mask.shape, np.uint16)
    full[unpack_mask(row["mask"], mask.shape)] = row["tokens"]
    assert np.array_equal(full, np.where(mask, window.codes, 0))
    assert row["num_tokens"] == mask.sum() == row["frame_token_counts"].sum()
    assert row["rate"] == np.float32(mask.mean())
    assert row["elbo"] == np.float32(window.information.astype(np.float64).mean())
    assert row["frame_elbo"] == pytest.approx(
        window.information.astype(np.float64).mean(axis=(1, 2)), rel=1e-6
    )


@given(st.lists(masks.filter(np.any), max_size=3))
def test_rows_survive_a_table(mask_list: list[np.ndarray]):
    rows = [_row(mask) for mask in mask_list]
    table = rows_to_table(rows)
    table.validate(full=True)
    assert table.schema == TOKEN_SCHEMA
    stored = table_to_rows(table)
    assert len(stored) == len(rows)
    assert all(equal_rows(*pair) for pair in zip(stored, rows, strict=True))


def test_a_source_without_a_frame_rate_is_a_null():
    row = _row(np.ones((1, 2, 2), bool), facts=replace(FACTS, source_fps=None))
    assert table_to_rows(rows_to_table([row]))[0]["source_fps"] is None


def test_further_columns_ride_along_behind_ours():
    rows = token_rows("a.mp4", 2, split="x", weight=1.5)
    fields = [pa.field("split", pa.string()), pa.field("weight", pa.float64())]
    del rows[1]["split"]
    table = rows_to_table(rows, fields)
    assert table.column_names == [*TOKEN_SCHEMA.names, "split", "weight"]
    assert table.column("split").to_pylist() == ["x", None]


def test_a_further_column_cannot_take_the_name_of_ours():
    with pytest.raises(ValueError, match=r"\['tokens'\] have names that are taken"):
        rows_to_table([], [pa.field("tokens", pa.string())])


def test_a_row_without_a_required_value_is_refused():
    row = token_rows("a.mp4", 1)[0]
    for name in ("elbo", "tokens"):
        with pytest.raises(ValueError, match=f"column {name} is required"):
            rows_to_table([{**row, name: None}])


def test_a_value_that_does_not_fit_its_column_is_refused():
    row = token_rows("a.mp4", 1)[0]
    with pytest.raises(ValueError, match="width"):
        rows_to_table([{**row, "width": 40_000}])


def test_a_window_keeps_at_least_one_token():
    with pytest.raises(ValueError, match="keep at least one"):
        _row(np.zeros((1, 2, 2), bool))


def test_a_code_outside_the_codebook_is_refused():
    window = analysis(1)
    window.codes[0, 0, 0] = 64000
    with pytest.raises(ValueError, match="64000 is out of range"):
        token_row(
            window,
            np.ones(window.codes.shape, bool),
            facts=FACTS,
            video="v",
            source="a",
            tokenizer="t",
            rate_target=1.0,
        )


def test_bpp16_counts_the_mask():
    # 33 x 256 x 256 at full rate: 9216 tokens; the paper's own count leaves the first frame out.
    full = bpp16(9216, 9216, 33 * 256 * 256)
    assert full == pytest.approx(9216 * (math.log2(64000) + 1) / (33 * 256 * 256) * 16)
    assert full == pytest.approx(1.1556, abs=5e-3)
    assert bpp16(10, 40, 160, num_codes=256) == (10 * 8 + 40) / 160 * 16
