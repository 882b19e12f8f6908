"""Any stored object, and any clip of a corpus, as text for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.histograms import elbo_histogram
from pipelines.sinks.webdataset import read_samples
from pipelines.validate import ReadableStore
from pipelines.wording import num_bytes_text, rule_text, significant
from schemas.documents import canonical_json, parse_json
from schemas.info import CorpusInfo
from schemas.layout import MANIFEST_PATH
from schemas.manifest import DataFile, decode_manifest
from schemas.plan import PLAN_SCHEMA
from schemas.quarantine import decode_quarantine
from schemas.receipt_packs import decode_pack
from schemas.receipts import VideoReceipt
from schemas.statistics import ElboStatistics
from schemas.tables import read_parquet
from schemas.tokens import NUM_CODES, TOKEN_SCHEMA, bpp16, table_to_rows, unpack_mask
from schemas.units import decode_unit
from schemas.versions import FormatError

__all__ = ["describe_object", "describe_row", "find_clip"]

_ROWS_SHOWN = 20
_TOKENS_SHOWN = 12
_BAR_WIDTH = 40
_MASK_COLUMNS = 64


def find_clip(store: ReadableStore, clip_id: str) -> dict[str, Any]:
    """The row of a clip; only files whose range of ids can hold it are read.

    Raises:
        KeyError: If no data file holds it.
        FormatError: If a file on the way is damaged.
    """
    for file in decode_manifest(store.read(MANIFEST_PATH)):
        if not file.min_clip_id <= clip_id <= file.max_clip_id:
            continue
        for row in _rows(file.path, store.read(file.path)):
            if row["clip_id"] == clip_id:
                return row
    raise KeyError(clip_id)


def describe_row(row: Mapping[str, Any], *, num_codes: int = NUM_CODES) -> str:
    """A token row: its columns, what each latent frame kept, and its mask as a picture.

    Args:
        row: All of its columns.
        num_codes: Vocabulary of its tokenizer, which a row does not say.
    """
    lines = [
        f"{name:18} {_value(value)}" for name, value in row.items() if name not in _DRAWN_COLUMNS
    ]
    mask = unpack_mask(row["mask"], (row["grid_t"], row["grid_h"], row["grid_w"]))
    pixels = row["num_frames"] * row["width"] * row["height"]
    lines.append(
        f"{'bpp16':18} {bpp16(row['num_tokens'], mask.size, pixels, num_codes=num_codes):.5f}"
    )
    cells = mask[0].size
    lines += ["", "latent frame  kept       elbo"]
    for frame, (kept, elbo) in enumerate(
        zip(row["frame_token_counts"], row["frame_elbo"], strict=True)
    ):
        bar = "#" * round(_BAR_WIDTH * int(kept) / cells)
        lines.append(f"{frame:12}  {kept:5}  {significant(float(elbo)):>8}  {bar}".rstrip())
    lines += ["", "kept tokens, all latent frames (. none, # all)", *_picture(mask)]
    return "\n".join(lines)


_DRAWN_COLUMNS = frozenset({"mask", "frame_token_counts", "frame_elbo"})


def _value(value: Any) -> str:  # noqa: ANN401  a cell of any column
    if isinstance(value, np.ndarray):
        shown = " ".join(str(token) for token in value[:_TOKENS_SHOWN])
        return f"{shown} … ({value.size})" if value.size > _TOKENS_SHOWN else shown
    return str(value)


def _picture(mask: npt.NDArray[np.bool_]) -> list[str]:
    """The share of latent frames that kept each position, one character each."""
    step = -(-mask.shape[2] // _MASK_COLUMNS)
    share = mask.mean(axis=0)[::step, ::step]
    return ["".join(_shade(value) for value in line) for line in share]


def _shade(share: float) -> str:
    if share in (0, 1):
        return ".#"[int(share)]
    return ":-=+*"[int(share * 5)]


def describe_object(path: str, data: bytes) -> str:
    """Any object of a corpus or a work folder; what it is, is seen from its content.

    Args:
        path: Its name; only the suffix matters.
        data: The whole object.

    Raises:
        FormatError: If it is damaged, or nothing of ours.
    """
    if path.endswith(".tar"):
        return _describe_rows(path, data)
    if path.endswith(".parquet"):
        names = set(read_parquet(data, schema=pa.schema([]), what=path).column_names)
        for column, describe in _TABLES.items():
            if column in names:
                return describe(data)
        return _describe_rows(path, data)
    if path.endswith(".json"):
        keys = set(parse_json(data, what=path))
        for key, describe in _DOCUMENTS.items():
            if key in keys:
                return describe(data)
        return canonical_json(json.loads(data), indent=2).decode("ascii").rstrip()
    raise FormatError(f"{path} is none of the objects this pipeline stores")


def _rows(path: str, data: bytes) -> list[dict[str, Any]]:
    if path.endswith(".tar"):
        rows = list(read_samples(data))
        for row in rows:
            row["frame_elbo"] = np.array(row["frame_elbo"], np.float32)
            row["frame_token_counts"] = np.array(row["frame_token_counts"], np.uint16)
        return rows
    return table_to_rows(read_parquet(data, schema=TOKEN_SCHEMA, what=path))


def _describe_rows(path: str, data: bytes) -> str:
    rows = _rows(path, data)
    tokens = sum(row["num_tokens"] for row in rows)
    cells = sum(row["grid_t"] * row["grid_h"] * row["grid_w"] for row in rows)
    videos = len({row["video_id"] for row in rows})
    lines = [
        f"{len(rows):,} windows of {videos:,} videos, {tokens:,} tokens, "
        f"rate {tokens / max(cells, 1):.5f}, {num_bytes_text(len(data))}",
        "",
        f"{'clip_id':40} {'grid':>10} {'tokens':>7} {'rate':>7} {'elbo':>9}  source",
    ]
    for row in rows[:_ROWS_SHOWN]:
        grid = f"{row['grid_t']}x{row['grid_h']}x{row['grid_w']}"
        lines.append(
            f"{row['clip_id']:40} {grid:>10} {row['num_tokens']:>7} {row['rate']:>7.4f} "
            f"{significant(row['elbo']):>9}  {row['source']}"
        )
    return "\n".join(lines + _more(len(rows)))


def _describe_unit(data: bytes) -> str:
    windows = decode_unit(data)
    lines = [
        f"{len(windows)} windows, {sum(window.codes.size for window in windows):,} tokens, "
        f"{num_bytes_text(len(data))}",
        "",
        f"{'window':>6} {'grid':>10} {'frames':>6} {'from s':>10} {'to s':>10} {'elbo':>9}",
    ]
    for window in windows:
        grid = "x".join(str(length) for length in window.codes.shape)
        span, elbo = window.span, float(window.information.astype(np.float64).mean())
        lines.append(
            f"{span.window_index:>6} {grid:>10} {span.num_frames:>6} {span.start_time_s:>10.3f} "
            f"{span.end_time_s:>10.3f} {significant(elbo):>9}"
        )
    return "\n".join(lines)


def _describe_statistics(data: bytes) -> str:
    statistics = ElboStatistics.from_bytes(data)
    low, high = statistics.bins.range
    width = statistics.confidence_half_width
    lines = [
        f"{statistics.windows:,} windows of {statistics.videos:,} videos "
        f"({statistics.num_sampled:,} of {statistics.num_listed:,} listed ones were looked at)",
        f"{'unit':22} {statistics.unit}; {statistics.sign}",
        f"{'token-weighted mean':22} {statistics.token_weighted_mean:.8f}"
        + ("" if width is None else f" +- {width:.8f} (95 %)"),
        f"{'window-weighted mean':22} {statistics.window_weighted_mean:.8f}",
        f"{'range':22} {significant(low)} .. {significant(high)}",
        f"{'plan':22} {statistics.plan_id}",
        f"{'tokenizer':22} {statistics.tokenizer}",
        f"{'digest':22} {statistics.digest}",
        "",
    ]
    histogram = elbo_histogram(statistics.bins, max_bars=24)
    most = max((bar.count for bar in histogram.bars), default=1)
    lines += [
        f"{significant(bar.lower):>9} .. {significant(bar.upper):<9} {bar.count:>10,}  "
        + "#" * -(-bar.count * _BAR_WIDTH // most)
        for bar in histogram.bars
    ]
    return "\n".join(line.rstrip() for line in lines).rstrip()


def _describe_info(data: bytes) -> str:
    info = CorpusInfo.from_bytes(data)
    head = f"{info.videos.committed:,} videos, {info.totals.clips:,} windows, "
    head += f"{info.totals.tokens:,} tokens, rate {info.realised_rate:.6f}, BPP16 {info.bpp16:.6f}"
    return f"{head}\n{rule_text(info.routing)}\n\n{info.to_bytes().decode('ascii').rstrip()}"


def _describe_receipt(data: bytes) -> str:
    receipt = VideoReceipt.from_bytes(data)
    lines = [
        f"{receipt.uri}: {receipt.status}, {receipt.windows:,} windows",
        f"{'attempts':22} {receipt.attempts}",
        f"{'video_id':22} {receipt.video_id}",
        f"{'version':22} {receipt.version}",
        f"{'frames decoded':22} {receipt.num_frames_decoded:,}",
        f"{'frames dropped':22} {receipt.num_frames_dropped:,}",
        f"{'mean elbo':22} {receipt.bins.token_weighted_mean:.8f}",
    ]
    if receipt.failure is not None:
        failure = receipt.failure
        lines.append(f"{'failure':22} {failure.reason} while {failure.stage}: {failure.detail}")
    lines += [f"{name:22} {value}" for name, value in (receipt.facts or {}).items()]
    lines += [
        f"{unit.unit_id:41} {unit.windows:>3} windows {unit.tokens:>8,} tokens  "
        f"{num_bytes_text(unit.num_bytes):>9}  {unit.sha256[:16]}"
        for unit in receipt.units
    ]
    return "\n".join(lines)


def _describe_manifest(data: bytes) -> str:
    files: list[DataFile] = decode_manifest(data)
    size = num_bytes_text(sum(file.bytes for file in files))
    lines = [f"{len(files):,} data files, {size}", ""]
    lines += [
        f"{file.path:40} {num_bytes_text(file.bytes):>9} {file.clips:>8,} clips "
        f"{file.tokens:>12,} tokens  {file.sha256[:16]}"
        for file in files[:_ROWS_SHOWN]
    ]
    return "\n".join(lines + _more(len(files)))


def _describe_quarantine(data: bytes) -> str:
    rows = decode_quarantine(data)
    lines = [f"{len(rows):,} videos set aside", ""]
    lines += [
        f"{row['reason']:18} {row['stage']:8} {row['uri']}: {row['detail']}"
        for row in rows[:_ROWS_SHOWN]
    ]
    return "\n".join(lines + _more(len(rows)))


def _describe_pack(data: bytes) -> str:
    rows = decode_pack(data)
    aside = sum(row.reason is not None for row in rows)
    lines = [f"receipts of {len(rows):,} videos, {aside:,} of them set aside", ""]
    for row in rows[:_ROWS_SHOWN]:
        receipt = VideoReceipt.from_bytes(row.receipt)
        what = row.reason or f"{receipt.windows:,} windows"
        lines.append(f"{row.video_id}  {what:>18}  {receipt.uri}")
    return "\n".join(lines + _more(len(rows)))


def _describe_plan(data: bytes) -> str:
    rows = read_parquet(data, schema=PLAN_SCHEMA, what="plan").to_pylist()
    lines = [f"{len(rows):,} videos in {len({row['shard'] for row in rows}):,} shards", ""]
    lines += [
        f"{row['shard']:>6} {num_bytes_text(row['size']):>9}  {row['video_id']}  {row['uri']}"
        for row in rows[:_ROWS_SHOWN]
    ]
    return "\n".join(lines + _more(len(rows)))


def _more(num_rows: int) -> list[str]:
    return [f"… and {num_rows - _ROWS_SHOWN:,} more"] if num_rows > _ROWS_SHOWN else []


# A column or key that only one kind of object has.
_TABLES: dict[str, Callable[[bytes], str]] = {
    "receipt": _describe_pack,
    "sha256": _describe_manifest,
    "reason": _describe_quarantine,
    "size": _describe_plan,
    "information": _describe_unit,
}
_DOCUMENTS: dict[str, Callable[[bytes], str]] = {
    "moments": _describe_statistics,
    "statistics_digest": _describe_info,
    "attempts": _describe_receipt,
}
