"""The snippets of docs/readers.md as they stand there: readers of others, and none of our code."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from shared import shared_dir
from video_corpora import Analysed, analyse_videos, write_corpus

from infotok_core.tokenizer import Tokenizer
from pipelines.config import SpaceConfig, WindowConfig

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "readers.md"
SNIPPETS = dict(
    re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?^```python\n(.*?)^```",
               PAGE.read_text(encoding="utf-8"), re.M | re.S)
)  # fmt: skip
NEEDS = {
    "pyarrow": "pyarrow",
    "polars": "polars",
    "DuckDB": "duckdb",
    "HF datasets, as a dataset of a hub": "datasets",
    "HF datasets, from the files": "datasets",
    "webdataset": "webdataset",
    "Megatron-Energon": "megatron.energon",
}
WINDOW, SPACE = WindowConfig(frames=17, fps=8), SpaceConfig(size=64)
ORIGINALS = ("openvla-github-io__openvla--move_banana*.mp4", "sample-videos__brother*.mkv")

Row = tuple[int, tuple[int, ...], bytes]
"""num_tokens, tokens, mask."""

# As every user of Energon sees them; and it tells the DataLoader to pin memory.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*pin_memory"),
]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Analysed]:
    """The bundled clips, and originals where there are some; analysed."""
    folder = tmp_path_factory.mktemp("videos")
    files = list((ROOT / "examples" / "clips").glob("*.mp4"))
    shared = shared_dir()
    for pattern in ORIGINALS if shared else ():
        files += (shared / "data" / "originals").rglob(pattern)
    for file in files:
        shutil.copyfile(file, folder / file.name)
    return folder, analyse_videos(Tokenizer.load("default"), folder, window=WINDOW, space=SPACE)


@pytest.fixture(scope="module")
def corpus(videos: tuple[Path, Analysed], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some files of both formats, with everything that stands beside them."""
    root, analysed = videos
    folder = tmp_path_factory.mktemp("corpora") / "tokens-50"
    write_corpus(
        folder, analysed, tokenizer=Tokenizer.load("default"), source_root=root, window=WINDOW,
        space=SPACE, formats=("parquet", "webdataset"), rows_per_file=5,
    )  # fmt: skip
    assert len(list((folder / "data").glob("*.parquet"))) > 1
    return folder


def _rows(found: Iterable[Mapping[str, Any]]) -> dict[str, Row]:
    rows = [
        (row["clip_id"], row["num_tokens"], tuple(map(int, row["tokens"])), bytes(row["mask"]))
        for row in found
    ]
    by_id = {clip_id: rest for clip_id, *rest in rows}
    assert len(by_id) == len(rows), "a clip came twice"
    return {clip_id: tuple(rest) for clip_id, rest in by_id.items()}


@pytest.fixture(scope="module")
def written(corpus: Path) -> dict[str, Row]:
    return _rows(pq.read_table(corpus / "data").to_pylist())


def test_the_tokens_are_the_codes_of_the_videos_where_the_mask_keeps_them(
    videos: tuple[Path, Analysed], corpus: Path, written: dict[str, Row]
) -> None:
    table = pq.read_table(corpus / "data", columns=["clip_id", "source", "window_index"])
    names = {(row["source"], row["window_index"]): row["clip_id"] for row in table.to_pylist()}
    windows = [(source, window) for source, (_, all_) in videos[1].items() for window in all_]
    assert len(windows) == len(names) == len(written)
    for source, window in windows:
        num_tokens, tokens, mask = written[names[source, window.span.window_index]]
        kept = np.unpackbits(np.frombuffer(mask, np.uint8), count=window.codes.size).astype(bool)
        assert tokens == tuple(window.codes.reshape(-1)[kept].tolist())
        assert num_tokens == len(tokens)
    totals = json.loads((corpus / "meta" / "info.json").read_text())["totals"]
    assert totals["clips"] == len(written)
    assert totals["tokens"] == sum(count for count, *_ in written.values())


@pytest.mark.parametrize("reader", SNIPPETS)
def test_a_reader_of_others_gives_every_row_as_it_was_written(
    reader: str, corpus: Path, written: dict[str, Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = NEEDS[reader]
    pytest.importorskip(module, reason=f"{module} is not installed: {reader} is untried")
    if module == "datasets":
        monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    files = sorted(path for path in corpus.rglob("*") if path.is_file())
    monkeypatch.chdir(corpus.parent)
    names: dict[str, Any] = {}
    exec(compile(SNIPPETS[reader], str(PAGE), "exec"), names)
    assert _rows(names["rows"]) == written
    if "per_video" in names:
        assert sum(count for _, count in names["per_video"]) == sum(n for n, *_ in written.values())
    # Nothing had to be prepared.
    assert sorted(path for path in corpus.rglob("*") if path.is_file()) == files


def test_every_reader_of_the_page_is_tried():
    assert list(SNIPPETS) == list(NEEDS)
