"""The dataset card: ``README.md`` of a corpus, from its head alone. Its twin is `report`."""

from __future__ import annotations

from pipelines.card_head import front_matter, hub_split
from pipelines.histograms import (
    Histogram,
    elbo_histogram,
    rate_histogram,
    token_histogram,
)
from pipelines.report import report_html
from pipelines.wording import (
    generation_text,
    num_bytes_text,
    rule_text,
    settings_text,
    significant,
)
from schemas.info import CorpusInfo
from schemas.layout import (
    INFO_PATH,
    MANIFEST_PATH,
    QUARANTINE_PATH,
    STATISTICS_PATH,
)
from schemas.statistics import ElboStatistics

__all__ = ["dataset_card", "report_html"]

_BAR_WIDTH = 40
_CARD_BARS = 24

_TRAINER = """\
Into a trainer, with `infotok` installed: shuffled, split over ranks and workers, able to go on
from any step; here packed into contexts of one length. Without a mode windows come one by one.

```python
from pipelines.dataset import Packing, TokenDataset

contexts = TokenDataset(".", Packing(context=8192))  # or its URL
context = next(iter(contexts))
tokens, places, borders = context["tokens"], context["positions"], context["cu_seqlens"]
```"""
_PARQUET = f"""\
```python
import numpy as np
import pyarrow.parquet as pq

files = pq.read_table("{MANIFEST_PATH}").to_pylist()  # trust the manifest alone
path = next(file["path"] for file in files if file["format"] == "parquet")
row = pq.read_table(path).slice(0, 1).to_pylist()[0]
grid = row["grid_t"], row["grid_h"], row["grid_w"]
bits = np.unpackbits(np.frombuffer(row["mask"], np.uint8))
mask = bits[: np.prod(grid)].astype(bool).reshape(grid)
tokens = np.array(row["tokens"], np.int64)  # uint16 cannot index an embedding
```"""
_HUB = """\
```python
from pathlib import Path

import numpy as np
from datasets import load_dataset

name = str(Path.cwd())  # or that of the dataset on a hub
rows = load_dataset(name, split="{split}", streaming=True)
row = next(iter(rows))
tokens = np.array(row["tokens"], np.int64)
```"""
_TARS = """\
```python
from pathlib import Path

import numpy as np
import webdataset as wds

tars = sorted(str(path) for path in Path("wds").glob("*.tar"))
for sample in wds.WebDataset(tars, shardshuffle=False).decode():
    tokens = sample["tokens.npy"].astype(np.int64)  # uint16 cannot index
    packed_mask, row = sample["mask.npy"], sample["json"]
    break
```"""
_ENERGON = """\
Megatron-Energon opens `wds/` without `energon prepare`, as a crude dataset: its
samples go through a cooker of yours."""


def dataset_card(info: CorpusInfo, statistics: ElboStatistics | None = None) -> str:
    """Markdown with the YAML head that dataset hubs read.

    Args:
        info: Head of the corpus.
        statistics: Of pass one, for the histogram of the information; None leaves it out.
    """
    histograms = [
        rate_histogram(info.totals, max_bars=_CARD_BARS),
        token_histogram(info.totals, max_bars=_CARD_BARS),
    ]
    if statistics is not None:
        histograms.append(elbo_histogram(statistics.bins, max_bars=_CARD_BARS))
    parts = [
        front_matter(info),
        _summary(info),
        _policies(info),
        _generations(info),
        _columns(info),
        _loaders(info),
        *(_histogram(histogram) for histogram in histograms if histogram.bars),
        _quarantine(info),
        _provenance(info),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(info: CorpusInfo) -> str:
    totals, videos = info.totals, info.videos
    rows = [
        ("videos", f"{videos.committed:,} of {videos.listed:,} ({videos.quarantined:,} set aside)"),
        ("windows", f"{totals.clips:,}"),
        ("tokens", f"{totals.tokens:,}"),
        ("tokens at full rate", f"{totals.cells:,}"),
        ("rate, asked", significant(info.routing.target)),
        ("rate, realised", f"{info.realised_rate:.5f}"),
        *_sample(info),
        ("BPP16, mask included", f"{info.bpp16:.5f}"),
        ("data files", f"{info.files:,} ({num_bytes_text(info.num_bytes)})"),
        ("licence", info.licence),
    ]
    return (
        "# Video tokens\n\n"
        "Windows of video as adaptive-length sequences of discrete tokens: the more information a "
        "window\nholds, the more of its tokens are kept.\n\n" + _table(("", ""), rows)
    )


def _sample(info: CorpusInfo) -> list[tuple[str, str]]:
    sample = info.statistics_sample
    if sample is None:
        return []
    width = sample.confidence_half_width
    interval = "" if width is None else f" ± {significant(width)} (95 %)"
    return [
        (
            "E[ELBO]",
            f"{significant(sample.mean_elbo)}{interval}, from {sample.videos:,} of "
            f"{sample.listed:,} videos: {sample.meaning}",
        )
    ]


def _policies(info: CorpusInfo) -> str:
    rows = [
        ("tokenizer", f"{info.tokenizer.name} (`{info.tokenizer.fingerprint[:16]}`)"),
        ("codebook", f"{info.tokenizer.num_codes:,} codes; ids above are free for special tokens"),
        ("windows", settings_text(info.window)),
        ("frames", settings_text(info.space)),
        ("rates", rule_text(info.routing)),
        ("elbo", f"{info.elbo_unit}; {info.elbo_sign}"),
        ("BPP16", f"(num_tokens * log2({info.tokenizer.num_codes}) + mask bits) / pixels * 16"),
    ]
    return "## How it was made\n\n" + _table(("", ""), rows)


def _generations(info: CorpusInfo) -> str:
    if not info.generations:
        return ""
    rows = [(f"from shard {run.first_shard}", generation_text(run)) for run in info.generations]
    return (
        "## Generations\n\nThe corpus was put together from several runs; each has a scale of its "
        "own, unless it says otherwise.\n\n" + _table(("files", "run"), rows)
    )


def _columns(info: CorpusInfo) -> str:
    lines = [
        "## A row",
        "",
        "One row is one window. `tokens` are the kept ids in (t, h, w) raster order; `mask` says "
        "which",
        "positions of the `grid_t * grid_h * grid_w` grid they are (`np.unpackbits`, 1 = kept). "
        "Times are",
        "half-open on the timeline of `source`, which is relative to the source root in",
        f"`{INFO_PATH}`. The meaning of each column stands in the Parquet field metadata.",
    ]
    if info.extra_columns:
        listed = ", ".join(
            f"`{name}` ({kind})" for name, kind in sorted(info.extra_columns.items())
        )
        lines += ["", f"Columns of the input manifest that ride along: {listed}."]
    return "\n".join(lines)


def _loaders(info: CorpusInfo) -> str:
    parts = ["## Reading it", _TRAINER, "With nothing of ours:"]
    if "parquet" in info.formats:
        parts += [_PARQUET, _HUB.format(split=hub_split(info))]
    if "webdataset" in info.formats:
        parts += [_TARS, _ENERGON]
    return "\n\n".join(parts)


def _histogram(histogram: Histogram) -> str:
    most = max(bar.count for bar in histogram.bars)
    lines = [
        f"{significant(bar.lower):>8} .. {significant(bar.upper):<8} {bar.count:>12,}  "
        f"{'#' * -(-bar.count * _BAR_WIDTH // most)}".rstrip()
        for bar in histogram.bars
    ]
    if histogram.num_zero:
        lines.insert(0, f"{'0':>8} {'':>11} {histogram.num_zero:>12,}")
    body = "\n".join(lines)
    return f"## {histogram.title}\n\nWindows by {histogram.axis}.\n\n```text\n{body}\n```"


def _quarantine(info: CorpusInfo) -> str:
    if not info.videos.quarantined:
        return ""
    counts = sorted(info.reasons.items(), key=lambda item: (-item[1], item[0]))
    rows = [(f"`{reason}`", f"{count:,}") for reason, count in counts]
    return (
        f"## Set aside\n\n{info.videos.quarantined:,} videos are not in the corpus; "
        f"`{QUARANTINE_PATH}` says why, one row each.\n\n" + _table(("reason", "videos"), rows)
    )


def _provenance(info: CorpusInfo) -> str:
    rows = [
        ("source root", f"`{info.source_root}`"),
        ("plan", f"`{info.plan_id}`"),
        ("tokenizer", f"`{info.tokenizer.fingerprint}`"),
        ("tokens", f"`{info.tokens_key}`"),
    ]
    if info.statistics_digest is not None:
        rows.append((f"`{STATISTICS_PATH}`", f"`{info.statistics_digest}`"))
    return "## Provenance\n\n" + _table(("", ""), rows)


def _table(head: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "| --- | --- |"]
    lines += [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
