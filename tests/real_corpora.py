"""A corpus of real footage for the tests of its readers: originals and clips of ``../shared``."""

from __future__ import annotations

import shutil
from pathlib import Path

from corpora import Corpus
from shared import shared_dir
from video_corpora import analyse_videos, write_corpus

from infotok_core.tokenizer import Tokenizer
from pipelines.config import SpaceConfig, WindowConfig
from schemas.info import CorpusInfo
from schemas.layout import INFO_PATH, MANIFEST_PATH, STATISTICS_PATH
from schemas.manifest import decode_manifest
from schemas.statistics import ElboStatistics

# Containers, codecs, turned and narrow pictures, lengths from one window to many.
_FILES = (
    "originals/val/openvla-github-io__openvla--move_banana*.mp4",
    "originals/val/sample-videos__brother*.mkv",
    "originals/formats/decord__video_90_*.mov",
    "originals/formats/moviepy__transparent_*.webm",
    "clips256/train/cosmos-predict1__0_*.mp4",
    "clips256/train/openvla-github-io__octo-knock-brown-bear*.mp4",
    "clips256/train/openvla-github-io__franka-pour-corn*.mp4",
)
_WINDOW, _SPACE = WindowConfig(frames=9, fps=10), SpaceConfig(size=64)


def build_real_corpus(root: Path) -> Corpus:
    """The files decoded, analysed by the default tokenizer and written in both formats."""
    videos, shared = root / "videos", shared_dir()
    assert shared is not None
    videos.mkdir()
    for pattern in _FILES:
        (file,) = (shared / "data").glob(pattern)
        shutil.copyfile(file, videos / file.name)
    tokenizer = Tokenizer.load("default")
    store = write_corpus(
        root / "corpus",
        analyse_videos(tokenizer, videos, window=_WINDOW, space=_SPACE),
        tokenizer=tokenizer,
        source_root=videos,
        window=_WINDOW,
        space=_SPACE,
        formats=("parquet", "webdataset"),
        rows_per_file=14,
    )
    return Corpus(
        store=store,
        info=CorpusInfo.from_bytes(store.read(INFO_PATH)),
        statistics=ElboStatistics.from_bytes(store.read(STATISTICS_PATH)),
        files=tuple(decode_manifest(store.read(MANIFEST_PATH))),
        quarantine=[],
    )
