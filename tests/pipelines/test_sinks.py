from __future__ import annotations

import hashlib
import io
import struct
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset as wds
from strategies import TOKENIZER, token_rows

from pipelines.row_checks import compare_rows
from pipelines.sinks.energon import energon_files, energon_tar_index
from pipelines.sinks.parquet import parquet_bytes
from pipelines.sinks.webdataset import read_samples, tar_bytes, tar_samples
from schemas.manifest import DataFile
from schemas.tokens import TOKEN_SCHEMA, rows_to_table, table_to_rows
from schemas.versions import FormatError

ROWS = sorted(token_rows("a.mp4", 5) + token_rows("b.mp4", 4), key=lambda row: str(row["clip_id"]))


def _parquet(rows=ROWS, encoding="byte_stream_split", row_group_rows=4) -> bytes:
    return parquet_bytes(
        rows_to_table(rows), encoding=encoding, row_group_rows=row_group_rows, tokenizer=TOKENIZER
    )


def _encodings(data: bytes) -> dict[str, set[str]]:
    group = pq.read_metadata(pa.BufferReader(data)).row_group(0)
    columns = [group.column(index) for index in range(group.num_columns)]
    return {column.path_in_schema: set(column.encodings) for column in columns}


@pytest.mark.parametrize("encoding", ["byte_stream_split", "dictionary"])
def test_plain_pyarrow_reads_the_rows(tmp_path: Path, encoding: str):
    path = tmp_path / "x.parquet"
    path.write_bytes(_parquet(encoding=encoding))
    table = pq.read_table(path)
    assert table.schema.names == TOKEN_SCHEMA.names
    for row, stored in zip(ROWS, table.to_pylist(), strict=True):
        grid = stored["grid_t"], stored["grid_h"], stored["grid_w"]
        bits = np.unpackbits(np.frombuffer(stored["mask"], np.uint8))[: np.prod(grid)]
        assert stored["tokens"] == row["tokens"].tolist()
        assert bits.sum() == stored["num_tokens"]
        assert compare_rows(row, stored) == []


def test_the_file_says_its_version_and_tokenizer():
    metadata = pq.read_schema(pa.BufferReader(_parquet())).metadata
    assert metadata == {b"format_version": b"1", b"tokenizer": TOKENIZER.encode()}


def test_the_file_has_groups_checksums_and_a_page_index():
    metadata = pq.read_metadata(pa.BufferReader(_parquet(row_group_rows=4)))
    assert [metadata.row_group(i).num_rows for i in range(3)] == [4, 4, 1]
    column = metadata.row_group(0).column(0)
    assert column.has_column_index
    assert column.has_offset_index
    assert column.compression == "ZSTD"


def test_tokens_are_split_into_byte_streams_or_kept_in_a_dictionary():
    leaf = "tokens.list.element"
    assert "BYTE_STREAM_SPLIT" in _encodings(_parquet())[leaf]
    older = _encodings(_parquet(encoding="dictionary"))
    assert "RLE_DICTIONARY" in older[leaf]
    assert not any("BYTE_STREAM_SPLIT" in encodings for encodings in older.values())


def test_the_order_of_the_rows_does_not_change_a_byte():
    assert _parquet() == _parquet(ROWS[::-1])
    assert tar_bytes(ROWS) == tar_bytes(ROWS[::-1])
    assert table_to_rows(pq.read_table(pa.BufferReader(_parquet())))[0]["clip_id"] == min(
        row["clip_id"] for row in ROWS
    )


@pytest.mark.parametrize("write", [_parquet, tar_bytes])
def test_a_clip_that_is_there_twice_is_refused(write):
    with pytest.raises(ValueError, match="twice"):
        write([*ROWS, ROWS[0]])


def test_random_ids_take_no_more_than_their_sixteen_bits():
    # One row of 2**16 distinct-ish ids: plain Parquet would take 32 bits each.
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 64000, 1 << 16).astype(np.uint16)
    row = {**ROWS[0], "tokens": tokens}
    extra = len(_parquet([{**row, "tokens": tokens[:1]}]))
    assert len(_parquet([row])) - extra < 1.01 * tokens.nbytes


def test_plain_webdataset_gives_arrays(tmp_path: Path):
    path = tmp_path / "train-000000-00.tar"
    path.write_bytes(tar_bytes(ROWS))
    samples = list(wds.WebDataset(str(path), shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == [row["clip_id"] for row in ROWS]
    for row, sample in zip(ROWS, samples, strict=True):
        assert sample["tokens.npy"].dtype == np.uint16
        assert sample["mask.npy"].dtype == np.uint8
        assert np.array_equal(sample["tokens.npy"], row["tokens"])
        assert sample["mask.npy"].tobytes() == row["mask"]
        assert sample["json"]["num_tokens"] == row["num_tokens"]
        assert sample["json"]["source_fps"] == row["source_fps"]


def test_both_formats_hold_the_same_rows():
    stored = table_to_rows(pq.read_table(pa.BufferReader(_parquet())))
    for row, sample in zip(stored, read_samples(tar_bytes(ROWS)), strict=True):
        assert compare_rows(row, sample) == []


def test_tar_members_know_neither_time_nor_owner():
    with tarfile.open(fileobj=io.BytesIO(tar_bytes(ROWS))) as tar:
        members = tar.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {
        (0, 0, 0, "", "", 0o644)
    }
    assert [member.name for member in members] == sorted(member.name for member in members)


def test_tar_bytes_are_the_same_everywhere():
    # Integers and text only: no library version and no platform enters the bytes.
    row = {"clip_id": "c-000000", "tokens": [1, 2, 3], "mask": b"\xe0", "num_tokens": 3}
    found = hashlib.sha256(tar_bytes([row])).hexdigest()
    assert found == "4b2193980417bea794f259c3a4277fb4c86e3e3057d1a69f8245aca6d7353d4e"


@pytest.mark.parametrize("cut", [100, 600, 5000])
def test_a_cut_off_tar_is_noticed(cut: int):
    with pytest.raises(FormatError):
        list(read_samples(tar_bytes(ROWS)[:cut]))


def test_a_tar_that_ends_between_two_samples_is_noticed():
    data = tar_bytes(ROWS)
    offsets = [offset for _, offset, _ in tar_samples(data)]
    with pytest.raises(FormatError, match="cut off"):
        list(read_samples(data[: offsets[3]]))


def test_a_tar_of_something_else_is_noticed():
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("folder/readme"), io.BytesIO())
    with pytest.raises(FormatError, match="no part of a sample"):
        list(read_samples(sink.getvalue()))


def test_the_energon_index_of_a_tar_leads_to_each_sample_and_to_the_end():
    data = tar_bytes(ROWS)
    index = energon_tar_index(data)
    offsets = struct.unpack(f"<{len(index) // 8}Q", index)
    assert len(offsets) == len(ROWS) + 1
    for row, start, stop in zip(ROWS, offsets, offsets[1:], strict=False):
        # A range of the tar is a tar without an end: all that Energon reads of a sample.
        sample = data[start:stop] + bytes(1024)
        assert [key for key, _, _ in tar_samples(sample)] == [row["clip_id"]]
    assert data[offsets[-1] :].strip(b"\0") == b""


def test_the_energon_index_of_a_corpus_names_every_tar_and_its_samples():
    def entry(path: str, kind) -> DataFile:
        return DataFile.of(path, b"x", rows=ROWS, shard=0, format=kind)

    files = [
        entry("wds/train-000001-00.tar", "webdataset"),
        entry("data/train-000000-00.parquet", "parquet"),
        entry("wds/train-000000-00.tar", "webdataset"),
    ]
    found = dict(energon_files(files))
    assert sorted(found) == [
        f"wds/.nv-meta/{name}" for name in (".info.json", "dataset.yaml", "split.yaml")
    ]
    assert found["wds/.nv-meta/split.yaml"] == (
        b"split_parts:\n  train:\n  - train-000000-00.tar\n  - train-000001-00.tar\nexclude: []\n"
    )
    assert b'"train-000001-00.tar": 9' in found["wds/.nv-meta/.info.json"]
    assert energon_files([]) == []
    with pytest.raises(ValueError, match="one folder"):
        energon_files([*files, entry("other/train-000002-00.tar", "webdataset")])
