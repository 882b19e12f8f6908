"""Damaged shards: an error that names file and row, or the same samples; never other ones."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from corpora import Corpus, build_corpus, copy_of, rows_of, video_windows
from shared import requires_shared

from pipelines.dataset import Packing, TokenDataset
from pipelines.errors import StorageError
from pipelines.sinks.parquet import parquet_bytes
from pipelines.sinks.webdataset import tar_bytes
from pipelines.storage import Store
from schemas.layout import MANIFEST_PATH
from schemas.manifest import DataFile, encode_manifest
from schemas.tokens import rows_to_table
from schemas.versions import FormatError

KINDS = ["parquet", "webdataset"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return build_corpus(tmp_path_factory.mktemp("corpus"), num_videos=4)


@pytest.fixture(scope="module")
def damaged(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return copy_of(corpus, tmp_path_factory.mktemp("damaged"))


def samples(store: Store, kind: Any, **options: Any) -> list[Any]:
    dataset = TokenDataset(store.url, seed=None, unit_rows=2, format=kind, **options)
    return [
        {**sample, "tokens": sample["tokens"].tolist(), "positions": sample["positions"].tolist()}
        for sample in dataset
    ]


def first_file(corpus: Corpus, kind: str) -> DataFile:
    return next(file for file in corpus.files if file.format == kind)


def flips(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    for place in rng.sample(range(len(data)), count):
        changed = bytearray(data)
        changed[place] ^= rng.choice([1 << rng.randrange(8), rng.randrange(1, 256)])
        yield bytes(changed)


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_byte_never_gives_other_samples(corpus: Corpus, damaged: Store, kind: str):
    file = first_file(corpus, kind)
    truth, data = samples(corpus.store, kind), corpus.store.read(file.path)
    said = 0
    for changed in flips(data, 60 if kind == "parquet" else 25, seed=3):
        damaged.replace(file.path, changed)
        try:
            found = samples(damaged, kind)
        except FormatError as error:
            message = str(error)
        else:
            # A byte that nothing depends on, or of a column that is not read, may go unnoticed.
            assert found == truth
            continue
        assert file.path in message
        said += 1
    assert said > 10
    damaged.replace(file.path, data)


@requires_shared
@pytest.mark.shared
@pytest.mark.parametrize("kind", KINDS)
def test_so_it_is_on_real_footage(footage: Corpus, kind: str, tmp_path: Path):
    damaged = copy_of(footage, tmp_path)
    test_a_flipped_byte_never_gives_other_samples(footage, damaged, kind)
    test_the_digest_of_the_manifest_finds_every_flip(footage, damaged, kind)
    test_a_file_that_is_cut_off_overwritten_empty_or_gone_is_named(footage, damaged, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_digest_of_the_manifest_finds_every_flip(corpus: Corpus, damaged: Store, kind: str):
    file = first_file(corpus, kind)
    data = corpus.store.read(file.path)
    for changed in flips(data, 12, seed=4):
        damaged.replace(file.path, changed)
        with pytest.raises(FormatError, match=re.escape(file.path)):
            samples(damaged, kind, verify="sha256")
    damaged.replace(file.path, data)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_cut_off_overwritten_empty_or_gone_is_named(
    corpus: Corpus, damaged: Store, kind: str
):
    file = first_file(corpus, kind)
    data = corpus.store.read(file.path)
    for changed in (data[:-1], data[: len(data) // 2], b"", b"more" + data, b"?" * len(data)):
        damaged.replace(file.path, changed)
        with pytest.raises(FormatError, match=re.escape(file.path)):
            samples(damaged, kind)
        with pytest.raises(FormatError, match=re.escape(file.path)):
            TokenDataset(damaged.url, Packing(context=64), format=kind)
    damaged.delete(file.path)
    with pytest.raises(StorageError, match=f"{re.escape(file.path)} is in the manifest, but gone"):
        samples(damaged, kind)
    damaged.replace(file.path, data)


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_changed_places_are_named(corpus: Corpus, damaged: Store, kind: str):
    one, two = (file for file in corpus.files if file.format == kind)
    damaged.replace(one.path, corpus.store.read(two.path))
    with pytest.raises(FormatError, match=re.escape(one.path)):
        samples(damaged, kind)
    damaged.replace(one.path, corpus.store.read(one.path))


def relabelled(
    corpus: Corpus, damaged: Store, kind: str, change: Callable[[list[dict[str, Any]]], None]
) -> DataFile:
    """Write rows anew, with a manifest that agrees: only the rows themselves can tell."""
    uri = "videos/2.mp4"
    rows = rows_of(uri, video_windows(uri, 3), corpus.info.routing)
    file = first_file(corpus, kind)
    listed = [row.copy() for row in rows]
    change(rows)
    tokenizer = corpus.info.tokenizer.fingerprint
    data = (
        parquet_bytes(
            rows_to_table(rows), encoding="byte_stream_split", row_group_rows=2, tokenizer=tokenizer
        )
        if kind == "parquet"
        else tar_bytes(rows)
    )
    damaged.replace(file.path, data)
    entry = DataFile.of(file.path, data, rows=listed, shard=0, format=file.format)
    damaged.replace(MANIFEST_PATH, encode_manifest([entry]))
    return entry


def lose_a_bit(rows: list[dict[str, Any]]) -> None:
    mask = bytearray(rows[1]["mask"])
    mask[0] ^= 0x80
    rows[1]["mask"] = bytes(mask)


def large_token(rows: list[dict[str, Any]]) -> None:
    rows[1]["tokens"] = rows[1]["tokens"].copy()
    rows[1]["tokens"][0] = 64001


def other_window(rows: list[dict[str, Any]]) -> None:
    rows[1]["window_index"] = 2


def other_grid(rows: list[dict[str, Any]]) -> None:
    rows[1]["grid_h"] = 9


def foreign_clip(rows: list[dict[str, Any]]) -> None:
    rows[1]["clip_id"] = "zz-000001"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", [lose_a_bit, large_token, other_window, other_grid])
def test_a_row_that_does_not_fit_together_is_named(
    corpus: Corpus, damaged: Store, kind: str, change: Any
):
    file = relabelled(corpus, damaged, kind, change)
    with pytest.raises(FormatError, match=rf"{re.escape(file.path)} row 1: clip \S+-000001"):
        samples(damaged, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_that_the_manifest_does_not_list_is_named(corpus: Corpus, damaged: Store, kind: str):
    file = relabelled(corpus, damaged, kind, foreign_clip)
    with pytest.raises(FormatError, match=rf"{re.escape(file.path)} row \d: clip zz-000001"):
        samples(damaged, kind)


def test_a_file_of_another_tokenizer_or_without_a_column_is_named(corpus: Corpus, damaged: Store):
    uri = "videos/2.mp4"
    rows = rows_of(uri, video_windows(uri, 3), corpus.info.routing)
    file = first_file(corpus, "parquet")
    table = rows_to_table(rows)
    for tokenizer, columns, message in (
        ("e" * 64, table, "by tokenizer e"),
        (corpus.info.tokenizer.fingerprint, table.drop_columns(["mask"]), "column mask is missing"),
    ):
        data = parquet_bytes(
            columns, encoding="byte_stream_split", row_group_rows=2, tokenizer=tokenizer
        )
        damaged.replace(file.path, data)
        entry = DataFile.of(file.path, data, rows=rows, shard=0, format="parquet")
        damaged.replace(MANIFEST_PATH, encode_manifest([entry]))
        with pytest.raises(FormatError, match=f"{re.escape(file.path)}.*{message}"):
            samples(damaged, "parquet")


def test_bytes_of_the_manifest_are_checked_before_anything_is_read(corpus: Corpus, tmp_path: Path):
    store = copy_of(corpus, tmp_path)
    store.replace(MANIFEST_PATH, store.read(MANIFEST_PATH)[:-9])
    with pytest.raises(FormatError, match="manifest"):
        TokenDataset(store.url)
