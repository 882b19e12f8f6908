"""What the golden files hold; ``python tests/schemas/golden_objects.py`` writes them anew.

Only a new format version may change them.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import numpy as np

from schemas.failures import FailureReason, FailureStage
from schemas.manifest import DataFile, ShardCommit, TotalsBuilder, encode_manifest
from schemas.quarantine import encode_quarantine, quarantine_row
from schemas.receipt_packs import PackedReceipt, ReopenedVideos, encode_pack
from schemas.receipts import FailureRecord, UnitEntry, VideoReceipt
from schemas.statistics import ElboStatistics, StatisticsFold
from schemas.tables import write_parquet
from schemas.tokens import rows_to_table, token_row
from schemas.units import encode_unit
from schemas.webdataset import sample_members
from schemas.window_counts import WindowCounter
from schemas.windows import StreamFacts, WindowAnalysis, WindowSpan

__all__ = ["FOLDER", "ROW", "WINDOW", "golden"]

FOLDER = Path(__file__).parent / "golden"
VIDEO = "0123456789abcdef" * 2
FACTS = StreamFacts(
    codec="h264",
    container="mov",
    pix_fmt="yuv420p",
    source_width=1920,
    source_height=1080,
    width=32,
    height=16,
    rotation=90,
    source_fps=None,
    fps=25.0,
    duration_s=1.5,
)
# No random numbers: arithmetic that no library can change.
_POSITIONS = np.arange(2 * 2 * 4).reshape(2, 2, 4)
WINDOW = WindowAnalysis(
    span=WindowSpan(
        window_index=3, start_frame=99, num_frames=5, start_time_s=3.96, end_time_s=4.16
    ),
    codes=(_POSITIONS * 4001 % 64000).astype(np.uint16),
    information=((_POSITIONS * 7 % 16) / 64).astype(np.float16),
)
ROW = token_row(
    WINDOW,
    WINDOW.information >= 0.125,
    facts=FACTS,
    video=VIDEO,
    source="a/ü.mp4",
    tokenizer="t" * 64,
    rate_target=0.5,
)


def _statistics(token_floor: float | None = None) -> ElboStatistics:
    counter = WindowCounter(token_floor)
    counter.add(WINDOW.information)
    counter.add(np.zeros(16, np.float16))
    fold = StatisticsFold(token_floor)
    fold.add_video(*counter.freeze())
    return fold.freeze(plan_id="p", tokenizer="t" * 64, num_listed=1)


def _receipt(token_floor: float | None = None) -> VideoReceipt:
    counter = WindowCounter(token_floor)
    counter.add(WINDOW.information)
    bins, token_bins = counter.freeze()
    unit = UnitEntry(
        unit_id=f"{VIDEO}-u00000",
        path="units/x.parquet",
        windows=1,
        tokens=16,
        sha256="a" * 64,
        num_bytes=100,
    )
    return VideoReceipt(
        video_id=VIDEO,
        uri="a/ü.mp4",
        version="etag",
        status="analysed",
        facts=asdict(FACTS),
        windows=1,
        tokens=16,
        units=(unit,),
        num_frames_decoded=104,
        bins=bins,
        token_bins=token_bins,
    )


def _quarantined() -> VideoReceipt:
    failure = FailureRecord(
        reason=FailureReason.TRUNCATED, stage=FailureStage.DECODE, detail="cut", num_frames=7
    )
    return VideoReceipt(
        video_id=VIDEO, uri="b.mp4", version="etag", status="quarantined", failure=failure
    )


def _commit() -> ShardCommit:
    totals = TotalsBuilder()
    totals.add(ROW)
    file = DataFile.of("data/x.parquet", b"x", rows=[ROW], shard=7, format="parquet")
    return ShardCommit(tokens_key="k", shard=7, files=(file,), videos=1, totals=totals.freeze())


def golden() -> dict[str, bytes]:
    """Bytes by file name."""
    rows = write_parquet(
        rows_to_table([ROW]),
        metadata={"tokenizer": "t" * 64},
        byte_stream_split=["tokens.list.element"],
    )
    members = sample_members(ROW)
    pack = encode_pack([PackedReceipt.of(receipt) for receipt in (_receipt(), _quarantined())])
    return {
        "receipts.parquet": pack,
        "reopened.json": ReopenedVideos(videos=(VIDEO,)).to_bytes(),
        "statistics.json": _statistics().to_bytes(),
        "token_statistics.json": _statistics(0.25).to_bytes(),
        "receipt.json": _receipt().to_bytes(),
        "published_receipt.json": _receipt().published(),
        "token_receipt.json": _receipt(0.25).to_bytes(),
        "quarantined.json": _quarantined().to_bytes(),
        "commit.json": _commit().to_bytes(),
        "sample.json": members[0][1],
        "sample.mask.npy": members[1][1],
        "sample.tokens.npy": members[2][1],
        "unit.parquet": encode_unit([WINDOW], video=VIDEO, unit_index=0, tokenizer="t" * 64),
        "tokens.parquet": rows,
        "manifest.parquet": encode_manifest(_commit().files),
        "quarantine.parquet": encode_quarantine([quarantine_row(_quarantined())]),
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, data in golden().items():
        (FOLDER / name).write_bytes(data)
