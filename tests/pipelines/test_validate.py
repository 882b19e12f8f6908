from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from corpora import Corpus, build_corpus, copy_of
from strategies import TOKENIZER

from pipelines.clip_keys import ClipKeys
from pipelines.sinks.parquet import parquet_bytes
from pipelines.sinks.webdataset import read_samples, tar_bytes
from pipelines.storage import Store
from pipelines.validate import ValidationReport, validate
from schemas.ids import clip_id, video_id
from schemas.layout import (
    CONFIG_PATH,
    INFO_PATH,
    MANIFEST_PATH,
    QUARANTINE_PATH,
    STATISTICS_PATH,
)
from schemas.manifest import DataFile, decode_manifest, encode_manifest
from schemas.quarantine import decode_quarantine, encode_quarantine
from schemas.tables import read_parquet
from schemas.tokens import TOKEN_SCHEMA, rows_to_table, table_to_rows

FIRST = "data/train-000000-00.parquet"
FIRST_TAR = "wds/train-000000-00.tar"
Row = dict[str, Any]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return build_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def store(corpus: Corpus, tmp_path: Path) -> Store:
    """A copy to damage."""
    return copy_of(corpus, tmp_path / "copy")


def _faults(store: Store) -> str:
    report = validate(store)
    assert not report.ok
    return "\n".join(str(fault) for fault in report.faults)


def _rewrite(
    store: Store, change: Callable[[list[Row]], list[Row] | None], path: str = FIRST
) -> None:
    """Change the rows of a file, and the manifest to match: only the rows are wrong."""
    data = store.read(path)
    if path.endswith(".tar"):
        rows = list(read_samples(data))
    else:
        rows = table_to_rows(read_parquet(data, schema=TOKEN_SCHEMA, what=path))
    rows = change(rows) or rows
    if path.endswith(".tar"):
        data = tar_bytes(rows)
        store.delete(path + ".idx")
    else:
        data = parquet_bytes(
            rows_to_table(rows), encoding="dictionary", row_group_rows=9, tokenizer=TOKENIZER
        )
    store.replace(path, data)
    files = decode_manifest(store.read(MANIFEST_PATH))
    old = next(file for file in files if file.path == path)
    new = DataFile.of(path, data, rows=rows, shard=old.shard, format=old.format)
    store.replace(MANIFEST_PATH, encode_manifest([new, *(f for f in files if f.path != path)]))


def _edit_json(store: Store, path: str, **change: Any) -> None:
    document = json.loads(store.read(path))
    store.replace(path, json.dumps({**document, **change}).encode())


def test_a_sound_corpus_has_no_faults(corpus: Corpus):
    report = validate(corpus.store)
    assert report.faults == ()
    assert report.totals == corpus.info.totals
    assert report.num_videos == 6
    assert report.num_files == 4
    assert report.summary().startswith("sound: 4 files, ")


@pytest.mark.parametrize("formats", [("parquet",), ("webdataset",)])
def test_a_corpus_of_one_format_is_sound_too(tmp_path: Path, formats: tuple[str, ...]):
    assert validate(build_corpus(tmp_path, formats=formats).store).faults == ()


def test_an_empty_folder_is_no_corpus(tmp_path: Path):
    report: ValidationReport = validate(Store(str(tmp_path)))
    assert "meta/manifest.parquet: is missing" in [str(fault) for fault in report.faults]


def test_a_missing_file_is_found(store: Store):
    store.delete(FIRST)
    assert f"{FIRST}: is missing" in _faults(store)


@pytest.mark.parametrize("path", ["data/left-over.parquet", "wds/x.tar", "wds/x.tar.idx"])
def test_a_file_that_no_manifest_names_is_found(store: Store, path: str):
    store.publish(path, b"x")
    assert f"{path}: is not in the manifest" in _faults(store)


@pytest.mark.parametrize("path", [FIRST, FIRST_TAR])
def test_a_flipped_byte_is_found(store: Store, path: str):
    data = bytearray(store.read(path))
    data[len(data) // 3] ^= 1
    store.replace(path, bytes(data))
    assert f"{path}: has another SHA-256" in _faults(store)


@pytest.mark.parametrize("path", [FIRST, FIRST_TAR])
def test_a_cut_off_file_is_found(store: Store, path: str):
    store.replace(path, store.read(path)[:-2000])
    assert re.search(f"{path}: has .* bytes, the manifest says", _faults(store))


@pytest.mark.parametrize("path", [INFO_PATH, MANIFEST_PATH, STATISTICS_PATH, QUARANTINE_PATH])
def test_a_damaged_head_is_found(store: Store, path: str):
    store.replace(path, store.read(path)[:-9])
    assert f"{path}: " in _faults(store)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"tokens": [64000] * 999}, "has token 64000 of 64000 codes"),
        ({"num_tokens": 1}, "num_tokens 1,"),
        ({"mask": b"\xff" * 24}, "192 bits in the mask"),
        ({"mask": b"\xff"}, "does not fit the grid"),
        ({"frame_token_counts": [1, 1, 1]}, "frame_token_counts"),
        ({"num_frames": 5}, "has 3 latent frames for 5 frames"),
        ({"height": 72}, "grid_h 8 for height 72"),
        ({"rate": 0.75}, "rate 0.75 is not"),
        ({"rate_target": 0.01}, "rate_target"),
        ({"elbo": 0.5}, "elbo 0.5 is not the mean"),
        ({"source": "other.mp4"}, "video_id is not that of source 'other.mp4'"),
        ({"window_index": 99}, "clip_id is not that of its video and window 99"),
        ({"end_time_s": -1.0}, "before it starts"),
        ({"start_time_s": float("-inf")}, "lies between -inf s and"),
        ({"start_frame": 1}, "starts at frame 1, its window at 0"),
        ({"num_frames": 12}, "has 12 frames, a window 9"),
        ({"fps": 0.0}, "has fps 0.0"),
        ({"source_fps": float("nan")}, "has source_fps nan"),
        ({"source_width": -5}, "has source_width -5"),
        ({"frame_elbo": [-0.1, 0.1, 0.3], "elbo": 0.1}, "frame_elbo holds a negative"),
        ({"tokenizer": "other"}, "is by tokenizer other"),
    ],
)
def test_a_wrong_row_is_found(store: Store, change: Row, complaint: str):
    def wrong(rows: list[Row]) -> None:
        rows[0] |= change
        if len(rows[0]["tokens"]) == 999:
            rows[0]["tokens"] = rows[0]["tokens"][: rows[0]["num_tokens"]]

    _rewrite(store, wrong)
    faults = _faults(store)
    assert re.search(f"{FIRST}: clip .*{re.escape(complaint)}", faults), faults


def test_tokens_that_the_rule_did_not_give_are_found(store: Store):
    def wrong(rows: list[Row]) -> None:
        # All of them, and every other column fits.
        cells = rows[0]["grid_t"] * rows[0]["grid_h"] * rows[0]["grid_w"]
        rows[0] |= {
            "tokens": [1] * cells,
            "num_tokens": cells,
            "mask": b"\xff" * (cells // 8),
            "frame_token_counts": [64, 64, 64],
            "rate": 1.0,
            "rate_target": 1.0,
        }

    _rewrite(store, wrong)
    assert re.search(f"{FIRST}: clip .*: elbo .* asks for .* tokens, it has 192", _faults(store))


def test_a_row_that_only_one_format_has_is_found(store: Store):
    _rewrite(store, lambda rows: rows[1:], FIRST_TAR)
    assert f"{FIRST_TAR}: holds other clips than {FIRST}" in _faults(store)


def test_a_difference_between_the_formats_is_found(store: Store):
    def wrong(rows: list[Row]) -> None:
        rows[2]["start_time_s"] -= 0.125

    _rewrite(store, wrong, FIRST_TAR)
    assert re.search(f"{FIRST_TAR}: clip .* differs from {FIRST} in start_time_s", _faults(store))


def test_a_clip_that_is_there_twice_is_found(store: Store):
    second = "data/train-000001-00.parquet"
    stolen = table_to_rows(read_parquet(store.read(second), schema=TOKEN_SCHEMA, what=second))[0]
    _rewrite(store, lambda rows: [*rows, stolen])
    assert f"1 clips are there twice: {stolen['clip_id']}" in _faults(store)


def test_a_row_of_a_quarantined_video_is_found(store: Store):
    rows = decode_quarantine(store.read(QUARANTINE_PATH))
    more = {**rows[0], "video_id": video_id("videos/0.mp4"), "uri": "videos/0.mp4"}
    store.replace(QUARANTINE_PATH, encode_quarantine([*rows, more]))
    faults = _faults(store)
    assert f"{QUARANTINE_PATH}: 1 of its videos have rows" in faults
    assert f"{INFO_PATH}: reasons are not those" in faults


def test_totals_that_are_not_those_of_the_rows_are_found(store: Store):
    _edit_json(store, INFO_PATH, files=7, videos={"listed": 9, "committed": 8, "quarantined": 1})
    faults = _faults(store)
    assert "says files 7, the data files say 4" in faults
    assert "8 videos committed, 6 have rows" in faults


def test_statistics_of_another_run_are_found(store: Store, tmp_path: Path):
    other = build_corpus(tmp_path / "other", num_videos=2)
    store.replace(STATISTICS_PATH, other.store.read(STATISTICS_PATH))
    faults = _faults(store)
    assert "is not the document that meta/info.json names" in faults
    assert "was measured with windows" in faults


def test_a_rate_that_was_not_realised_is_found(store: Store):
    routing = json.loads(store.read(INFO_PATH))["routing"]
    _edit_json(store, INFO_PATH, routing={**routing, "target": 0.6})
    assert re.search(r"rate 0\.6 was asked for, 0\.\d+ is realised", _faults(store))


def test_a_window_that_is_missing_is_found(store: Store):
    def wrong(rows: list[Row]) -> None:
        last = rows[-1]
        last["window_index"] += 2
        last["start_frame"] += 2 * 9
        last["clip_id"] = clip_id(last["video_id"], last["window_index"])

    _rewrite(store, wrong)
    _rewrite(store, wrong, FIRST_TAR)
    assert re.search(f"{MANIFEST_PATH}: 2 windows are missing before ", _faults(store))


def test_information_that_the_statistics_do_not_know_is_found(store: Store):
    def wrong(rows: list[Row]) -> None:
        for row in rows:
            row["elbo"] *= 1.001
            row["frame_elbo"] = [1.001 * elbo for elbo in row["frame_elbo"]]

    _rewrite(store, wrong)
    _rewrite(store, wrong, FIRST_TAR)
    assert re.search(f"{STATISTICS_PATH}: has mean ELBO .*, its rows have ", _faults(store))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"shard": 7}, f"lists {FIRST} as parquet of shard 7: data/train-000007-00.parquet"),
        ({"format": "webdataset"}, f"lists {FIRST} as webdataset of shard 0: wds/"),
    ],
)
def test_an_entry_of_the_manifest_that_is_not_its_files_is_found(
    store: Store, change: Row, complaint: str
):
    first, *others = decode_manifest(store.read(MANIFEST_PATH))
    changed = first.model_copy(update=change)
    store.replace(MANIFEST_PATH, encode_manifest([changed, *others]))
    assert f"{MANIFEST_PATH}: {complaint}" in _faults(store)


def test_a_format_that_the_head_does_not_name_is_found(store: Store):
    _edit_json(store, INFO_PATH, formats=["parquet"])
    expected = f"{MANIFEST_PATH}: lists parquet, webdataset, {INFO_PATH} says parquet"
    assert expected in _faults(store)


@pytest.mark.parametrize(
    ("path", "name", "derived"),
    [(INFO_PATH, "realised", {"rate": 0.9}), (STATISTICS_PATH, "summary", {"max": 9.0})],
)
def test_derived_numbers_that_do_not_follow_are_found(
    store: Store, path: str, name: str, derived: Row
):
    _edit_json(store, path, **{name: derived})
    (key, value), *_ = derived.items()
    assert f"{path}: says {name}.{key} {value}, the rest of it " in _faults(store)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"uri": "other.mp4"}, "is not the id of 'other.mp4'"),
        ({"stage": "lunch"}, "has stage 'lunch'"),
        ({"attempts": 0}, "0 attempts"),
        ({"windows": -1}, "-1 windows"),
    ],
)
def test_a_wrong_row_of_the_quarantine_is_found(store: Store, change: Row, complaint: str):
    first, *others = decode_quarantine(store.read(QUARANTINE_PATH))
    store.replace(QUARANTINE_PATH, encode_quarantine([{**first, **change}, *others]))
    assert re.search(f"{QUARANTINE_PATH}: video .*{re.escape(complaint)}", _faults(store))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"tokens_key": "f" * 64}, "is of tokens_key ffff"),
        ({"made_from": {"plan": "other"}}, "was made from plan other"),
        ({"made_from": {"rule": {"scale": 9.5}}}, "was made by a rule of scale 9.5"),
        ({"made_from": 7}, "does not say which corpus it is of"),
    ],
)
def test_a_configuration_of_another_corpus_is_found(
    corpus: Corpus, store: Store, change: Row, complaint: str
):
    document = {"tokens_key": corpus.info.tokens_key, "config": {}}
    store.replace(CONFIG_PATH, json.dumps(document).encode())
    assert validate(store).ok
    store.replace(CONFIG_PATH, json.dumps({**document, **change}).encode())
    assert f"{CONFIG_PATH}: {complaint}" in _faults(store)


def test_an_index_of_another_tar_is_found(store: Store):
    store.replace(FIRST_TAR + ".idx", store.read("wds/train-000001-00.tar.idx"))
    assert f"{FIRST_TAR}.idx: is not the index of its tar" in _faults(store)


def test_many_faults_of_one_file_are_summed_up(store: Store):
    def wrong(rows: list[Row]) -> None:
        for row in rows:
            row |= {"rate": 0.99, "elbo": 0.5}

    _rewrite(store, wrong)
    assert re.search(f"{FIRST}: and \\d+ more faults in its rows", _faults(store))


def test_clip_keys_find_a_repeated_clip_among_many(tmp_path: Path):
    videos = [video_id(f"{index}.mp4") for index in range(500)]
    with ClipKeys() as keys:
        for start in range(0, 500, 100):
            keys.add((video, index) for video in videos[start : start + 100] for index in range(4))
        keys.add([(videos[7], 3), (videos[0], 0)])
        report = keys.report(quarantined={videos[9], "0" * 32})
    assert report.num_videos == 500
    assert report.num_repeated == 2
    assert set(report.repeated) == {clip_id(videos[7], 3), clip_id(videos[0], 0)}
    assert report.num_quarantined == 1


def test_clip_keys_find_windows_that_are_missing():
    videos = sorted(video_id(f"{index}.mp4") for index in range(300))
    with ClipKeys() as keys:
        keys.add((video, index) for video in videos for index in (0, 1, 2) if video != videos[5])
        keys.add([(videos[5], 2), (videos[5], 3), (videos[5], 256), (videos[9], 1)])
        report = keys.report()
    assert report.num_missing == 2 + 252
    assert report.missing == (clip_id(videos[5], 2), clip_id(videos[5], 256))
    assert report.num_repeated == 1


def test_clip_keys_that_end_in_zeros_are_told_apart():
    with ClipKeys() as keys:
        keys.add([("ab" * 15 + "00", 0), ("ab" * 15 + "00", 256), ("ab" * 15 + "00", 65536)])
        report = keys.report()
    assert (report.num_repeated, report.num_missing) == (0, 65537 - 3)


def test_no_clip_is_no_fault():
    with ClipKeys() as keys:
        assert keys.report().num_videos == 0
