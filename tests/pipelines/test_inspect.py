from __future__ import annotations

from pathlib import Path

import pytest
from corpora import Corpus, build_corpus, video_windows
from strategies import TOKENIZER

from pipelines.inspect import describe_object, describe_row, find_clip
from schemas.ids import clip_id, video_id
from schemas.layout import INFO_PATH, MANIFEST_PATH, QUARANTINE_PATH, STATISTICS_PATH
from schemas.receipt_packs import PackedReceipt, encode_pack
from schemas.receipts import FailureRecord, VideoReceipt
from schemas.units import encode_unit
from schemas.versions import FormatError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return build_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("data/train-000000-00.parquet", "windows of 3 videos"),
        ("wds/train-000000-00.tar", "windows of 3 videos"),
        (MANIFEST_PATH, "4 data files"),
        (QUARANTINE_PATH, "1 videos set aside"),
        (STATISTICS_PATH, "token-weighted mean"),
        (INFO_PATH, "6 videos"),
    ],
)
def test_every_file_of_a_corpus_can_be_described(corpus: Corpus, path: str, words: str):
    assert words in describe_object(path, corpus.store.read(path))


def test_both_formats_are_described_alike(corpus: Corpus):
    texts = [
        describe_object(path, corpus.store.read(path)).split("\n", 1)[1]
        for path in ("data/train-000000-00.parquet", "wds/train-000000-00.tar")
    ]
    assert texts[0] == texts[1]


def test_a_unit_can_be_described():
    data = encode_unit(
        video_windows("a.mp4", 3), video=video_id("a.mp4"), unit_index=0, tokenizer=TOKENIZER
    )
    assert "3 windows" in describe_object("units/ab/x-u00000.parquet", data)


def test_a_receipt_can_be_described():
    failure = FailureRecord(reason="EMPTY_FILE", stage="open", detail="zero bytes")
    receipt = VideoReceipt(
        video_id="v", uri="a.mp4", version="1", status="quarantined", failure=failure
    )
    text = describe_object("videos/v.json", receipt.to_bytes())
    assert "EMPTY_FILE while open: zero bytes" in text


def test_a_pack_of_receipts_can_be_described():
    failure = FailureRecord(reason="EMPTY_FILE", stage="open", detail="zero bytes")
    receipt = VideoReceipt(
        video_id="v", uri="a.mp4", version="1", status="quarantined", failure=failure
    )
    text = describe_object("receipts/000000/000.parquet", encode_pack([PackedReceipt.of(receipt)]))
    assert "1 videos, 1 of them set aside" in text
    assert "EMPTY_FILE  a.mp4" in text


def test_another_document_is_shown_as_it_is():
    assert '"note": "x"' in describe_object("plan.json", b'{"format_version": 1, "note": "x"}')


@pytest.mark.parametrize("formats", [("parquet",), ("webdataset",)])
def test_a_clip_is_found_and_drawn(tmp_path: Path, formats: tuple[str, ...]):
    store = build_corpus(tmp_path, formats=formats).store
    clip = clip_id(video_id("videos/2.mp4"), 1)
    text = describe_row(find_clip(store, clip))
    assert clip in text
    assert "videos/2.mp4" in text
    small = describe_row(find_clip(store, clip), num_codes=256)
    assert sum(a != b for a, b in zip(small.splitlines(), text.splitlines(), strict=True)) == 1
    assert len(text.splitlines()[-1]) == 8  # one character for each latent column


def test_a_clip_that_is_nowhere_is_a_key_error(corpus: Corpus):
    with pytest.raises(KeyError, match="nothing-000000"):
        find_clip(corpus.store, "nothing-000000")


@pytest.mark.parametrize("path", ["x.bin", "data/x.parquet", "meta/info.json", "wds/x.tar"])
def test_what_is_none_of_ours_is_a_clear_error(path: str):
    with pytest.raises(FormatError):
        describe_object(path, b"nothing of ours")
