from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import token_rows

from schemas.manifest import (
    RATE_BINS,
    DataFile,
    ShardCommit,
    Totals,
    TotalsBuilder,
    decode_manifest,
    encode_manifest,
)
from schemas.versions import FormatError

ROWS = token_rows("a.mp4", 3) + token_rows("b.mp4", 2)


def _file(path: str = "data/train-000000-00.parquet", kind: Any = "parquet") -> DataFile:
    return DataFile.of(path, b"bytes", rows=ROWS, shard=0, format=kind)


def _totals(rows: list[dict[str, Any]]) -> Totals:
    builder = TotalsBuilder()
    for row in rows:
        builder.add(row)
    return builder.freeze()


def test_files_survive_the_manifest_in_order_of_their_path():
    files = [_file("wds/x.tar", "webdataset"), _file()]
    assert decode_manifest(encode_manifest(files)) == files[::-1]
    assert encode_manifest(files) == encode_manifest(files[::-1])


def test_a_data_file_knows_its_rows():
    file = _file()
    assert file.bytes == 5
    assert file.clips == 5
    assert file.tokens == sum(row["num_tokens"] for row in ROWS)
    assert file.min_clip_id == min(row["clip_id"] for row in ROWS)
    assert file.max_clip_id == max(row["clip_id"] for row in ROWS)


def test_a_data_file_without_rows_is_refused():
    with pytest.raises(ValueError, match="holds no row"):
        DataFile.of("data/x.parquet", b"", rows=[], shard=0, format="parquet")


def test_a_manifest_row_that_cannot_be_is_a_clear_error():
    bad = _file().model_copy(update={"sha256": "zz"})
    with pytest.raises(FormatError, match="sha256"):
        decode_manifest(encode_manifest([bad]))


def test_a_damaged_manifest_is_a_clear_error():
    with pytest.raises(FormatError, match="manifest cannot be read"):
        decode_manifest(encode_manifest([_file()])[:-9])


@given(st.permutations(ROWS), st.integers(0, len(ROWS)))
def test_totals_do_not_depend_on_order_or_grouping(rows: list[dict[str, Any]], cut: int):
    assert _totals(rows[:cut]) + _totals(rows[cut:]) == _totals(ROWS)


@given(st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))))
def test_a_window_falls_into_the_rate_bin_that_holds_it(window: tuple[int, int]):
    cells, kept = window
    row = {**ROWS[0], "num_tokens": kept, "grid_t": cells, "grid_h": 1, "grid_w": 1}
    index = _totals([row]).rate_histogram.index(1)
    assert index * cells < kept * RATE_BINS <= (index + 1) * cells


def test_a_commit_survives_storage():
    files = (_file(), _file("wds/train-000000-00.tar", "webdataset"))
    commit = ShardCommit(tokens_key="k", shard=0, files=files, videos=2, totals=_totals(ROWS))
    assert ShardCommit.from_bytes(commit.to_bytes()) == commit
    assert (commit.clips, commit.tokens) == (files[0].clips, files[0].tokens)


def test_a_shard_of_quarantined_videos_only_has_no_file():
    commit = ShardCommit(tokens_key="k", shard=0, files=(), videos=0, totals=Totals())
    assert ShardCommit.from_bytes(commit.to_bytes()).clips == 0


def test_a_commit_that_does_not_add_up_is_refused():
    with pytest.raises(ValueError, match="parquet files hold"):
        ShardCommit(tokens_key="k", shard=0, files=(_file(),), videos=2, totals=_totals(ROWS[:1]))
    with pytest.raises(ValueError, match="but no file"):
        ShardCommit(tokens_key="k", shard=0, files=(), videos=2, totals=_totals(ROWS))


def test_totals_whose_histograms_disagree_are_refused():
    with pytest.raises(ValueError, match="histograms count"):
        Totals(clips=1)
