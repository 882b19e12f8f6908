"""What a sample says, in both formats, here and on S3, and back to video."""

from __future__ import annotations

import functools
import re
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from corpora import build_corpus, copy_of, rows_of, video_windows
from torch.utils.data import DataLoader

from pipelines.config import StorageConfig
from pipelines.dataset import (
    Buckets,
    Packing,
    Specials,
    TokenDataset,
    checkpoint_of,
    detokenise,
)
from pipelines.dataset.corpus import Unit
from pipelines.dataset.unit_reader import UnitReader
from pipelines.errors import IncompleteError, PlanMismatchError, StorageError
from pipelines.sinks.parquet import parquet_bytes
from pipelines.sinks.webdataset import tar_bytes
from pipelines.storage import Store
from schemas.layout import INFO_PATH, MANIFEST_PATH
from schemas.manifest import DataFile, encode_manifest
from schemas.tokens import rows_to_table, unpack_mask

pytest_plugins = ["s3"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return build_corpus(tmp_path_factory.mktemp("corpus"), num_videos=5)


@pytest.fixture(scope="module")
def root(corpus: Any) -> Path:
    return Path(corpus.store.url)


def plain(sample: dict[str, Any]) -> dict[str, Any]:
    tensors = {name: sample[name].tolist() for name in ("tokens", "positions")}
    # A DataLoader makes lists of tuples.
    return {**sample, **tensors, "grid": list(sample["grid"])}


def test_a_sample_is_its_row(corpus: Any, root: Path):
    rows = {
        row["clip_id"]: row
        for index in range(5)
        for row in rows_of(
            f"videos/{index}.mp4",
            video_windows(f"videos/{index}.mp4", index % 4 + 1),
            corpus.info.routing,
        )
    }
    samples = list(TokenDataset(root, columns=("elbo", "frame_elbo")))
    assert {sample["clip_id"] for sample in samples} == set(rows)
    for sample in samples:
        row = rows[sample["clip_id"]]
        assert sample["tokens"].dtype == torch.int64
        assert sample["positions"].dtype == torch.int32
        assert sample["grid"] == (3, 8, 8)
        mask = unpack_mask(row["mask"], sample["grid"])
        assert sample["positions"].tolist() == np.argwhere(mask).tolist()
        assert sample["tokens"].tolist() == row["tokens"].tolist()
        same = ("video_id", "source", "window_index", "start_time_s", "end_time_s", "elbo")
        assert all(sample[name] == row[name] for name in same)
        assert sample["frame_elbo"].tolist() == row["frame_elbo"].tolist()


def test_both_formats_and_any_number_of_rows_give_the_same_samples(root: Path):
    first = [plain(sample) for sample in TokenDataset(root, seed=None)]
    for options in ({"format": "webdataset"}, {"unit_rows": 3}, {"verify": "sha256"}):
        again = TokenDataset(root, seed=None, **options)
        assert [plain(sample) for sample in again] == first
    with pytest.raises(ValueError, match="unit_rows 0"):
        TokenDataset(root, unit_rows=0)


def test_videos_are_held_out_by_their_id(root: Path):
    every = {sample["clip_id"] for sample in TokenDataset(root)}
    parts = [
        {s["clip_id"] for s in TokenDataset(root, unit_rows=2, videos=choice)}
        for choice in (lambda video: video < "8", lambda video: video >= "8")
    ]
    assert parts[0] | parts[1] == every
    assert not parts[0] & parts[1]
    with pytest.raises(ValueError, match="no row"):
        TokenDataset(root, videos=lambda _: False)


@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_columns_of_the_manifest_of_videos_ride_along(corpus: Any, tmp_path: Path, kind: str):
    uri = "videos/0.mp4"
    rows = rows_of(uri, video_windows(uri, 2), corpus.info.routing)
    for row in rows:
        row.update(caption=f"a {row['window_index']}", action=[0.5, 1.5])
    extra = [pa.field("caption", pa.string()), pa.field("action", pa.list_(pa.float32()))]
    table = rows_to_table(rows, extra)
    fingerprint = corpus.info.tokenizer.fingerprint
    data = (
        parquet_bytes(table, encoding="byte_stream_split", row_group_rows=8, tokenizer=fingerprint)
        if kind == "parquet"
        else tar_bytes(rows)
    )
    store = Store(str(tmp_path))
    path = f"data/train-000000-00.{kind}"
    store.publish(path, data)
    columns = {"caption": "string", "action": "list<float>"}
    info = corpus.info.model_copy(update={"extra_columns": columns})
    store.publish(INFO_PATH, info.to_bytes())
    store.publish(
        MANIFEST_PATH, encode_manifest([DataFile.of(path, data, rows=rows, shard=0, format=kind)])
    )
    samples = list(TokenDataset(tmp_path, seed=None))
    assert [sample["caption"] for sample in samples] == ["a 0", "a 1"]
    assert [list(sample["action"]) for sample in samples] == [[0.5, 1.5]] * 2
    (context,) = TokenDataset(tmp_path, Packing(context=500), seed=None)
    assert [window["caption"] for window in context["windows"]] == ["a 0", "a 1"]
    (first, _) = TokenDataset(tmp_path, seed=None, columns=())
    assert "caption" not in first
    with pytest.raises(ValueError, match=r"no columns.*captions"):
        TokenDataset(tmp_path, columns=("captions",))


@pytest.mark.parametrize("mode", [None, Packing(context=100)], ids=["samples", "packing"])
def test_a_team_that_divides_the_lanes_reads_little_twice(
    root: Path, monkeypatch: pytest.MonkeyPatch, mode: Any
):
    read: list[int] = []
    plain_rows = UnitReader._parquet_rows

    def counting(self: UnitReader, unit: Unit) -> Any:
        read.append(unit.number)
        return plain_rows(self, unit)

    monkeypatch.setattr(UnitReader, "_parquet_rows", counting)
    for rank in range(2):
        options = {"rank": rank, "world_size": 2, "drop_last": False}
        list(TokenDataset(root, mode, lanes=2, unit_rows=2, **options))
    units = len(TokenDataset(root, unit_rows=2).corpus.units)
    assert set(read) == set(range(units))
    # The unit that two lanes share; packed, a context may also lie over a border.
    assert len(read) <= units + 2


def test_a_missing_corpus_or_format_is_said(tmp_path: Path):
    with pytest.raises(IncompleteError, match="holds no corpus"):
        TokenDataset(tmp_path)
    build_corpus(tmp_path / "tars", formats=("webdataset",), num_videos=2)
    with pytest.raises(IncompleteError, match="has no parquet files: it has webdataset"):
        TokenDataset(tmp_path / "tars", format="parquet")


def test_arguments_that_do_not_fit_are_refused(root: Path):
    for options, message in (
        ({"lanes": 0}, "lanes 0"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"rank": 1}, "given together"),
        ({"rank": 2, "world_size": 2}, "rank 2 of 2"),
        ({"verify": "sha"}, "verify must be 'pages' or 'sha256', not 'sha'"),
        ({"mode": "packing"}, "mode must be None, a Packing or Buckets, not 'packing'"),
    ):
        with pytest.raises(ValueError, match=message):
            TokenDataset(root, **options)
    with pytest.raises(ValueError, match="epoch -1"):
        TokenDataset(root).set_epoch(-1)


@pytest.mark.s3
def test_a_bucket_gives_what_the_folder_gives(
    corpus: Any, root: Path, bucket: str, s3_config: StorageConfig
):
    there = Store(f"{bucket}/tokens", s3_config)
    for path in (INFO_PATH, MANIFEST_PATH, *(file.path for file in corpus.files)):
        there.publish(path, corpus.store.read(path))
    local = [plain(sample) for sample in TokenDataset(root, unit_rows=6, lanes=2)]
    remote = TokenDataset(there.url, storage=s3_config, unit_rows=6, lanes=2)
    assert [plain(sample) for sample in remote] == local
    # The connection of this process does not survive the fork.
    loader = DataLoader(remote, batch_size=None, num_workers=1)
    assert [plain(sample) for sample in loader] == local
    contexts = [
        [context["tokens"].tolist() for context in TokenDataset(url, Packing(context=200), **more)]
        for url, more in ((root, {}), (there.url, {"storage": s3_config}))
    ]
    assert contexts[0] == contexts[1]
    tars = TokenDataset(there.url, storage=s3_config, format="webdataset")
    assert len(list(tars)) == len(local)
    there.delete(remote.corpus.files[0].path)
    with pytest.raises(StorageError, match="is in the manifest, but gone"):
        list(TokenDataset(there.url, storage=s3_config))


def test_a_web_server_without_ranges_is_enough(root: Path):
    pytest.importorskip("aiohttp", reason="fsspec asks web servers with it")
    serve = functools.partial(_Quiet, directory=str(root))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        for mode in (None, Packing(context=200)):
            there, here = (
                [item["tokens"].tolist() for item in TokenDataset(place, mode)]
                for place in (url, root)
            )
            assert there == here
        server.shutdown()
        thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def test_samples_go_back_to_frames_by_the_default_checkpoint(corpus: Any, tmp_path: Path):
    store = copy_of(corpus, tmp_path)
    with pytest.raises(PlanMismatchError, match="name the checkpoint"):
        checkpoint_of(corpus.info)
    tokenizer = checkpoint_of(_written_by_default(store))
    sample = next(iter(TokenDataset(corpus.store.url)))
    frames = detokenise(sample, tokenizer)
    assert frames.shape == (9, 64, 64, 3)
    assert frames.dtype == np.uint8
    order = torch.randperm(len(sample["tokens"]))
    mixed = {**sample, **{name: sample[name][order] for name in ("tokens", "positions")}}
    special = torch.tensor([[-1, -1, -1]], dtype=torch.int32)
    mixed["tokens"] = torch.cat([torch.tensor([64000]), mixed["tokens"]])
    mixed["positions"] = torch.cat([special, mixed["positions"]])
    assert (detokenise(mixed, tokenizer) == frames).all()
    outside = {**sample, "positions": sample["positions"] + 7}
    with pytest.raises(ValueError, match="outside of the grid"):
        detokenise(outside, tokenizer)
    twice = {**sample, "positions": sample["positions"] * 0}
    with pytest.raises(ValueError, match="same position"):
        detokenise(twice, tokenizer)
    with pytest.raises(ValueError, match=r"tokens \[\d+\] and positions \[\d+, 3\] must be"):
        detokenise({**sample, "tokens": sample["tokens"][1:]}, tokenizer)
    for change, message in (
        ({"tokens": sample["tokens"] + 0.5}, r"tokens of torch\.float32 must be whole numbers"),
        ({"positions": sample["positions"].double()}, r"positions of torch\.float64 must be whole"),
        # As 32 bits these would be codes.
        ({"tokens": sample["tokens"] + (1 << 32)}, r"token 429\d+ is none of 64000 codes"),
        ({"tokens": sample["tokens"] - 64000}, r"token -\d+ is none of 64000 codes"),
        ({"grid": (3, 8)}, r"grid \(3, 8\) must be \(t, h, w\)"),
        ({"num_frames": -1}, "num_frames -1 must be at least 1"),
        ({"num_frames": 8.5}, r"num_frames must be a whole number, not 8\.5"),
    ):
        with pytest.raises(ValueError, match=message):
            detokenise({**sample, **change}, tokenizer)
    with pytest.raises(ValueError, match="token 64500 is none of 64000 codes"):
        detokenise({**sample, "tokens": sample["tokens"] * 0 + 64500}, tokenizer)
    context = next(iter(TokenDataset(corpus.store.url, Packing(context=50))))
    with pytest.raises(ValueError, match="lacks grid, num_frames, width, height: windows can be"):
        detokenise(context, tokenizer)
    # What a model made has neither a name nor a time.
    made = {name: sample[name] for name in _MADE}
    assert (detokenise(made, tokenizer) == frames).all()


_MADE = ("tokens", "positions", "grid", "num_frames", "width", "height")


def _written_by_default(store: Store) -> Any:
    from infotok_core.opening import identify_tokenizer
    from schemas.info import CorpusInfo

    info = CorpusInfo.from_bytes(store.read(INFO_PATH))
    fingerprint = identify_tokenizer().fingerprint
    return info.model_copy(
        update={"tokenizer": info.tokenizer.model_copy(update={"fingerprint": fingerprint})}
    )


def test_an_epoch_of_which_nothing_is_left_is_refused(root: Path):
    """A trainer would go through its epochs in no time, and be done."""
    rank = TokenDataset(root, rank=1, world_size=64)
    with pytest.raises(ValueError, match=r"\d+ items are no whole step of 64 ranks .* drop_last"):
        list(rank)
    assert len(list(TokenDataset(root, rank=1, world_size=64, drop_last=False))) == 1


@pytest.mark.parametrize(
    ("mode", "options", "message"),
    [
        (None, {"seed": "1"}, "seed must be a whole number, not '1'"),
        (None, {"lanes": 2.5}, "lanes must be a whole number, not 2.5"),
        (None, {"batch_size": None}, "batch_size must be a whole number, not None"),
        (None, {"unit_rows": 2.5}, "unit_rows must be a whole number, not 2.5"),
        (None, {"rank": 0.0, "world_size": 2}, "rank must be a whole number, not 0.0"),
        (Packing, {"context": "100"}, "context must be a whole number, not '100'"),
        (Buckets, {"max_tokens": 1e5}, "max_tokens must be a whole number, not 100000.0"),
        (Packing, {"context": 9, "specials": {"bos": 64000}}, "specials must be a Specials, not"),
        (Specials, {"bos": "64000"}, "bos must be a whole number, not '64000'"),
    ],
)
def test_what_is_no_whole_number_is_named(root: Path, mode: Any, options: Any, message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        TokenDataset(root, **options) if mode is None else mode(**options)


def test_whole_numbers_of_numpy_are_whole_numbers(root: Path):
    def items(number: Any) -> list[list[int]]:
        packing = Packing(context=number(100), specials=Specials(bos=number(64000)))
        packed = TokenDataset(root, packing, seed=number(3), lanes=number(2), batch_size=number(1))
        return [context["tokens"].tolist() for context in packed]

    assert items(np.int64) == items(int)
