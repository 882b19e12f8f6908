"""Contexts hold every token once, and nothing of two documents as if it were one."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpora import Corpus, build_corpus
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import requires_shared

from pipelines.dataset import Buckets, Packing, Specials, TokenDataset, collate
from pipelines.dataset.packing import cut_pieces

BOS, EOS, SEAM, FRAME, PAD = 64000, 64001, 64002, 64003, 65535
ALL = Specials(bos=BOS, eos=EOS, seam=SEAM, frame=FRAME, pad=PAD)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    build_corpus(folder, formats=("parquet",), num_videos=8)
    return folder


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 50), st.booleans())
def test_pieces_cover_every_document_in_order(lengths: list[int], context: int, split: bool):
    pieces = cut_pieces(np.array(lengths), context, split=split)
    filled: Counter[int] = Counter()
    covered = [0] * len(lengths)
    last = (0, 0)
    for document, start, length, number in zip(*(p.tolist() for p in pieces), strict=True):
        assert start == covered[document]
        covered[document] += length
        filled[number] += length
        assert (number, document) >= last
        last = number, document
        assert split or length in (lengths[document] - start, context)
    assert covered == lengths
    assert max(filled.values()) <= context
    assert sorted(filled) == list(range(len(filled)))
    if split:
        assert all(filled[number] == context for number in range(len(filled) - 1))


specials = st.builds(
    Specials,
    bos=st.sampled_from([None, BOS]),
    eos=st.sampled_from([None, EOS]),
    seam=st.sampled_from([None, SEAM]),
    frame=st.sampled_from([None, FRAME]),
    pad=st.just(PAD),
)
packings = st.builds(
    Packing,
    context=st.sampled_from([37, 100, 1000]),
    documents=st.sampled_from(["video", "window"]),
    split=st.booleans(),
    specials=specials,
)


@settings(max_examples=12)
@given(packings, st.integers(1, 5), st.integers(0, 3), st.integers(1, 9))
def test_an_epoch_holds_each_token_once_and_no_piece_crosses_documents(
    root: Path, packing: Packing, lanes: int, epoch: int, unit_rows: int
):
    check_epoch(root, packing, lanes=lanes, epoch=epoch, unit_rows=unit_rows)


@requires_shared
@pytest.mark.shared
@settings(max_examples=12)
@given(packings, st.integers(1, 5), st.integers(0, 3), st.integers(1, 9))
def test_so_it_is_on_real_footage(
    footage: Corpus, packing: Packing, lanes: int, epoch: int, unit_rows: int
):
    check_epoch(Path(footage.store.url), packing, lanes=lanes, epoch=epoch, unit_rows=unit_rows)


def check_epoch(root: Path, packing: Packing, *, lanes: int, epoch: int, unit_rows: int) -> None:
    """Every window comes back from its pieces, whole and in its place."""
    rows = {row["clip_id"]: row for row in TokenDataset(root, seed=None)}
    packed = TokenDataset(root, packing, lanes=lanes, unit_rows=unit_rows)
    packed.set_epoch(epoch)
    parts: dict[str, list[tuple[int, list[int], list[list[int]]]]] = defaultdict(list)
    for context in packed:
        check_borders(context, packing)
        for window in context["windows"]:
            part = slice(window["start"], window["start"] + window["length"])
            parts[window["clip_id"]].append(
                (window["first_item"], context["tokens"][part].tolist(),
                 context["positions"][part].tolist())
            )  # fmt: skip
            assert window["start_time_s"] == rows[window["clip_id"]]["start_time_s"]
    assert set(parts) == set(rows)
    for clip, found in parts.items():
        found.sort(key=lambda part: part[0])
        firsts = np.cumsum([0, *(len(ids) for _, ids, _ in found)])
        assert [first for first, _, _ in found] == firsts[:-1].tolist()
        ids = np.array([token for _, ids, _ in found for token in ids])
        where = np.array([at for _, _, places in found for at in places])
        real = where[:, 1] >= 0
        assert ids[real].tolist() == rows[clip]["tokens"].tolist()
        assert where[real][:, 1:].tolist() == rows[clip]["positions"][:, 1:].tolist()
        times = where[real][:, 0] - rows[clip]["positions"][:, 0].numpy()
        assert len(set(times.tolist())) == 1
        frames = packing.specials.frame is not None
        assert (ids == FRAME).sum() == (rows[clip]["grid"][0] if frames else 0)
        assert (ids[~real] >= BOS).all()


def check_borders(context: dict[str, Any], packing: Packing) -> None:
    borders, ids = context["cu_seqlens"].tolist(), context["tokens"]
    assert borders[0] == 0
    assert all(a < b for a, b in pairwise(borders))
    assert len(ids) == packing.context
    for piece, (start, end) in enumerate(pairwise(borders)):
        assert (context["document_ids"][start:end] == piece).all()
        windows = [window for window in context["windows"] if window["document"] == piece]
        assert len({window["video_id"] for window in windows}) == 1
        assert sum(window["length"] for window in windows) == end - start
        indices = [window["window_index"] for window in windows]
        assert indices == list(range(indices[0], indices[0] + len(indices)))
        assert all(window["follows"] for window in windows[1:])
        if packing.documents == "window":
            assert len(windows) == 1
            assert not windows[0]["follows"]
    assert (context["document_ids"][borders[-1] :] == -1).all()
    assert (ids[borders[-1] :] == PAD).all()


def test_specials_stand_where_they_should(root: Path):
    packed = TokenDataset(root, Packing(context=4000, specials=ALL), seed=None)
    (context,) = [next(iter(packed))]
    ids, where = context["tokens"].numpy(), context["positions"].numpy()
    for window in context["windows"]:
        start, end = window["start"], window["start"] + window["length"]
        if end == len(ids):
            continue
        assert ids[start] == (SEAM if window["follows"] else BOS)
        assert ids[start + 1] == FRAME
        marks = np.flatnonzero(ids[start:end] == FRAME)
        # Behind the mark of a frame are tokens of this frame.
        frames = where[start:end][marks][:, 0]
        assert frames.tolist() == list(range(frames[0], frames[0] + 3))
        if window["follows"]:
            assert frames[0] > 0
        for mark, after, frame in zip(marks, [*marks[1:], None], frames, strict=True):
            inside = where[start:end][mark + 1 : after]
            assert (inside[inside[:, 1] >= 0][:, 0] == frame).all()
    documents = {window["document"]: window for window in context["windows"]}
    for document in documents.values():
        end = document["start"] + document["length"]
        assert end == len(ids) or ids[end - 1] == EOS
    assert (where[ids == BOS] == -1).all()


def test_an_empty_frame_still_has_its_mark(root: Path):
    from pipelines.dataset.samples import window_items
    from schemas.info import TokenizerInfo
    from schemas.tokens import pack_mask

    mask = np.zeros((3, 1, 2), bool)
    mask[2, 0, 1] = True
    row = {
        "clip_id": "a-000000", "video_id": "a", "window_index": 0, "mask": pack_mask(mask),
        "tokens": np.array([7], np.uint16), "num_tokens": 1, "grid_t": 3, "grid_h": 1, "grid_w": 2,
    }  # fmt: skip
    info = TokenizerInfo(fingerprint="f", name="n", spatial_compression=8, temporal_compression=4)
    ids, where = window_items(row, info, Specials(frame=FRAME), where="here", first_frame=10)
    assert ids.tolist() == [FRAME, FRAME, FRAME, 7]
    assert where.tolist() == [[10, -1, -1], [11, -1, -1], [12, -1, -1], [12, 0, 1]]


def test_a_batch_of_contexts_has_the_borders_of_all(root: Path):
    contexts = list(TokenDataset(root, Packing(context=250, split=False, documents="window")))[:3]
    batch = collate(contexts)
    assert batch["tokens"].shape == (3, 250)
    borders = batch["cu_seqlens"].tolist()
    assert borders[0] == 0
    assert borders[-1] == 750
    flat = batch["document_ids"].reshape(-1)
    for start, end in pairwise(borders):
        assert len(set(flat[start:end].tolist())) == 1
    assert {250, 500} <= set(borders)


def test_bucketed_batches_hold_each_window_once_and_little_padding(root: Path):
    rows = {row["clip_id"]: row["tokens"].tolist() for row in TokenDataset(root)}
    buckets = Buckets(batch_size=3, max_tokens=320, specials=Specials(eos=EOS, pad=PAD))
    seen: dict[str, list[int]] = {}
    for batch in TokenDataset(root, buckets, unit_rows=8):
        assert len(batch["windows"]) <= 3
        assert batch["tokens"].numel() <= 320
        for ids, where, length, window in zip(
            batch["tokens"], batch["positions"], batch["lengths"], batch["windows"], strict=True
        ):
            assert (ids[length:] == PAD).all()
            assert (where[length:] == -1).all()
            assert ids[length - 1] == EOS
            seen[window["clip_id"]] = ids[: length - 1].tolist()
    assert seen == rows
    with pytest.raises(ValueError, match="max_tokens is 50"):
        next(iter(TokenDataset(root, Buckets(max_tokens=50))))


buckets = st.builds(
    Buckets, batch_size=st.integers(1, 9), max_tokens=st.integers(250, 900), specials=specials
)


@settings(max_examples=12)
@given(buckets, st.integers(1, 5), st.integers(0, 3), st.integers(1, 9))
def test_any_buckets_give_every_window_back(
    root: Path, chosen: Buckets, lanes: int, epoch: int, unit_rows: int
):
    check_buckets(root, chosen, lanes=lanes, epoch=epoch, unit_rows=unit_rows)


@requires_shared
@pytest.mark.shared
@settings(max_examples=12)
@given(buckets, st.integers(1, 5), st.integers(0, 3), st.integers(1, 9))
def test_buckets_give_real_footage_back(
    footage: Corpus, chosen: Buckets, lanes: int, epoch: int, unit_rows: int
):
    check_buckets(Path(footage.store.url), chosen, lanes=lanes, epoch=epoch, unit_rows=unit_rows)


def check_buckets(root: Path, chosen: Buckets, *, lanes: int, epoch: int, unit_rows: int) -> None:
    """Every window comes back once from its line, and nothing else stands there."""
    rows = {row["clip_id"]: row for row in TokenDataset(root, seed=None)}
    batched = TokenDataset(root, chosen, lanes=lanes, unit_rows=unit_rows)
    batched.set_epoch(epoch)
    seen: list[str] = []
    for batch in batched:
        assert 1 <= len(batch["windows"]) <= chosen.batch_size
        assert batch["tokens"].numel() <= chosen.max_tokens
        assert batch["tokens"].shape[1] == int(batch["lengths"].max())
        for ids, where, length, window in zip(
            batch["tokens"], batch["positions"], batch["lengths"], batch["windows"], strict=True
        ):
            row, real = rows[window["clip_id"]], where[:, 1] >= 0
            assert torch.equal(ids[real], row["tokens"])
            assert torch.equal(where[real], row["positions"])
            assert not real[length:].any()
            assert (ids[length:] == PAD).all()
            used = chosen.specials
            marks = [mark for mark in (used.bos, used.eos) if mark is not None]
            frames = row["grid"][0] if used.frame is not None else 0
            assert int(length) == len(row["tokens"]) + len(marks) + frames
            seen.append(window["clip_id"])
    assert sorted(seen) == sorted(rows)


def test_special_ids_must_be_free(root: Path):
    for wrong in (Specials(bos=63999), Specials(eos=65536), Specials(bos=BOS, eos=BOS)):
        with pytest.raises(ValueError, match="free range 64000 to 65535"):
            TokenDataset(root, Packing(context=10, specials=wrong))
    with pytest.raises(ValueError, match="pad"):
        TokenDataset(root, Packing(context=10, specials=Specials(pad=-1)))
    assert torch.long == next(iter(TokenDataset(root)))["tokens"].dtype
