"""``report.html``: a corpus at a glance, on one page that loads nothing.

A run writes the part that its own documents tell; `infotok report` adds what the rows and the
videos show. The further sections are in `report_sections`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from pipelines.charts import has_charts, histogram_svg
from pipelines.histograms import (
    Histogram,
    elbo_histogram,
    rate_histogram,
    token_histogram,
)
from pipelines.report_clips import ReportVideo, WindowFacts
from pipelines.report_sections import chart, charts, scatter, speed, videos
from pipelines.report_style import STYLE
from pipelines.wording import (
    compact,
    generation_text,
    num_bytes_text,
    rule_text,
    settings_text,
    significant,
)
from schemas.info import CorpusInfo
from schemas.layout import QUARANTINE_PATH
from schemas.reconstruction import ReconstructionSample
from schemas.statistics import ElboStatistics
from schemas.timings import StageTiming

__all__ = ["ReportDetails", "report_html"]

_EXAMPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportDetails:
    """What the heads of a corpus do not say.

    Attributes:
        windows: Of its rows; a sample where the corpus is large.
        videos: To be shown.
        measured: A decoded sample.
        timings: Of the stages that made it.
        without_originals: Why the videos stand without their sources; empty if they do not.
    """

    windows: Sequence[WindowFacts] = ()
    videos: Sequence[ReportVideo] = ()
    measured: ReconstructionSample | None = None
    timings: Sequence[StageTiming] = ()
    without_originals: str = ""


def report_html(
    info: CorpusInfo,
    statistics: ElboStatistics | None = None,
    quarantine: Sequence[Mapping[str, Any]] = (),
    details: ReportDetails | None = None,
) -> str:
    """The whole page. Where matplotlib is not installed it says so instead of drawing.

    Args:
        info: Head of the corpus.
        statistics: Of pass one, for the histogram of the information; None leaves it out.
        quarantine: Rows of the quarantine, for examples of each reason.
        details: None: the page of a run.
    """
    details = details or ReportDetails()
    body = "\n".join(
        part
        for part in (
            _header(info),
            _tiles(info, details),
            videos(details.videos, details.without_originals),
            _charts(info, statistics, details.windows),
            _quarantine(info, quarantine),
            speed(details.timings),
            _facts(info),
        )
        if part
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>Video tokens: {escape(info.split)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _header(info: CorpusInfo) -> str:
    return (
        f"<header>\n<h1>Video tokens</h1>\n<p>{escape(info.source_root)}</p>\n"
        f"<p>{escape(rule_text(info.routing))}</p>\n</header>"
    )


def _tiles(info: CorpusInfo, details: ReportDetails) -> str:
    totals, counts, windows = info.totals, info.videos, details.windows
    tiles = [
        ("Videos", compact(counts.committed), f"of {counts.listed:,} listed"),
        ("Windows", compact(totals.clips), _policy(info)),
        ("Tokens", compact(totals.tokens), f"of {compact(totals.cells)} at full rate"),
        ("Rate", f"{info.realised_rate:.4f}", f"asked {significant(info.routing.target)}"),
        ("BPP16", f"{info.bpp16:.4f}", "mask included"),
        ("Size", num_bytes_text(info.num_bytes), f"{info.files:,} files"),
    ]
    seconds = sum(window.end_time_s - window.start_time_s for window in windows)
    if seconds > 0:
        pace = sum(window.num_tokens for window in windows) / seconds
        tiles.insert(3, ("Pace", compact(round(pace)), "tokens / s of video"))
    if details.measured is not None:
        note = f"SSIM {details.measured.ssim:.3f}, {len(details.measured.clips):,} windows"
        tiles.append(("PSNR", f"{details.measured.psnr_db:.2f} dB", note))
    cells = "\n".join(
        f"<div><dt>{name}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
        for name, value, note in tiles
    )
    return f'<dl class="tiles">\n{cells}\n</dl>'


def _policy(info: CorpusInfo) -> str:
    frames, size = info.window.get("frames"), info.space.get("size")
    return f"{frames} frames, {size} px" if frames and size else f"{info.totals.clips:,}"


def _charts(
    info: CorpusInfo, statistics: ElboStatistics | None, windows: Sequence[WindowFacts]
) -> str:
    asked, realised = ("asked", info.routing.target), ("realised", info.realised_rate)
    # Where both coincide one line is enough.
    near = abs(asked[1] - realised[1]) < 0.005
    mean_tokens = info.totals.tokens / max(info.totals.clips, 1)
    drawn: list[tuple[Histogram, list[tuple[str, float]]]] = [
        (
            rate_histogram(info.totals),
            [("asked and realised", asked[1])] if near else [asked, realised],
        ),
        (token_histogram(info.totals), [("mean", mean_tokens)]),
    ]
    if statistics is not None:
        mean = statistics.window_weighted_mean
        drawn.append((elbo_histogram(statistics.bins), [("mean", mean)]))
    drawn = [(histogram, markers) for histogram, markers in drawn if histogram.bars]
    if not drawn:
        return ""
    if not has_charts():
        return charts("")
    parts = [_histogram(histogram, markers) for histogram, markers in drawn]
    return charts("\n".join([*parts, scatter(windows, info)]))


def _histogram(histogram: Histogram, markers: list[tuple[str, float]]) -> str:
    note = f"Windows by {histogram.axis}."
    if histogram.num_zero:
        note += f" {histogram.num_zero:,} windows hold no information at all and are not drawn."
    return chart(histogram.title, note, histogram_svg(histogram, markers=markers))


def _quarantine(info: CorpusInfo, rows: Sequence[Mapping[str, Any]]) -> str:
    if not info.videos.quarantined:
        return ""
    lines: list[str] = []
    for reason, count in sorted(info.reasons.items(), key=lambda item: (-item[1], item[0])):
        examples = [row for row in rows if row["reason"] == reason][:_EXAMPLES]
        listed = "".join(
            f"<li><code>{escape(row['uri'])}</code> {escape(row['detail'])}</li>"
            for row in examples
        )
        share = 100 * count / info.videos.quarantined
        lines.append(
            f"<tr><th scope=row>{escape(reason)}</th><td class=number>{count:,}</td>"
            f'<td><div class="share" style="width:{share:.2f}%"></div>'
            f"<ul>{listed}</ul></td></tr>"
        )
    return (
        f"<section>\n<h2>Set aside</h2>\n<p>{info.videos.quarantined:,} of "
        f"{info.videos.listed:,} videos, each a row of <code>{QUARANTINE_PATH}</code>.</p>\n"
        '<div class="scroll"><table class="reasons">\n<thead><tr><th scope=col>Reason</th>'
        "<th scope=col class=number>Videos</th><th scope=col>Examples</th></tr></thead>\n"
        "<tbody>\n" + "\n".join(lines) + "\n</tbody></table></div>\n</section>"
    )


def _facts(info: CorpusInfo) -> str:
    rows = [
        ("Licence", info.licence),
        ("Tokenizer", info.tokenizer.name),
        ("Fingerprint", info.tokenizer.fingerprint),
        ("Windows", settings_text(info.window)),
        ("Frames", settings_text(info.space)),
        ("Formats", ", ".join(info.formats)),
        *((f"From shard {run.first_shard}", generation_text(run)) for run in info.generations),
        ("ELBO", f"{info.elbo_unit}; {info.elbo_sign}"),
        ("Plan", info.plan_id),
        ("Pass two", info.tokens_key),
        ("Statistics", info.statistics_digest or "none"),
        ("Format version", str(info.format_version)),
    ]
    lines = "\n".join(
        f"<tr><th scope=row>{name}</th><td>{escape(value)}</td></tr>" for name, value in rows
    )
    return (
        f'<section>\n<h2>Provenance</h2>\n<div class="scroll"><table class="facts">\n'
        f"<tbody>\n{lines}\n</tbody></table></div>\n</section>"
    )
