"""``report.html``: a corpus at a glance, on one page that loads nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from pipelines.histograms import (
    Histogram,
    elbo_histogram,
    rate_histogram,
    token_histogram,
)
from pipelines.report_style import STYLE
from pipelines.svg import histogram_svg
from pipelines.wording import compact, num_bytes_text, rule_text, settings_text, significant
from schemas.info import CorpusInfo
from schemas.layout import QUARANTINE_PATH
from schemas.statistics import ElboStatistics

__all__ = ["report_html"]

_EXAMPLES = 3


def report_html(
    info: CorpusInfo,
    statistics: ElboStatistics | None = None,
    quarantine: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The whole page.

    Args:
        info: Head of the corpus.
        statistics: Of pass one, for the histogram of the information; None leaves it out.
        quarantine: Rows of the quarantine, for examples of each reason.
    """
    body = "\n".join(
        part
        for part in (
            _header(info),
            _tiles(info),
            _charts(info, statistics),
            _quarantine(info, quarantine),
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


def _tiles(info: CorpusInfo) -> str:
    totals, videos = info.totals, info.videos
    share = f"of {videos.listed:,} listed"
    asked = f"asked {significant(info.routing.target)}"
    tiles = [
        ("Videos", compact(videos.committed), share),
        ("Windows", compact(totals.clips), f"{totals.clips:,}"),
        ("Tokens", compact(totals.tokens), f"{totals.tokens:,}"),
        ("Rate", f"{info.realised_rate:.4f}", asked),
        ("BPP16", f"{info.bpp16:.4f}", "mask included"),
        ("Size", num_bytes_text(info.num_bytes), f"{info.files:,} files"),
    ]
    cells = "\n".join(
        f"<div><dt>{name}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
        for name, value, note in tiles
    )
    return f'<dl class="tiles">\n{cells}\n</dl>'


def _charts(info: CorpusInfo, statistics: ElboStatistics | None) -> str:
    asked, realised = ("asked", info.routing.target), ("realised", info.realised_rate)
    # Where both coincide one line is enough.
    near = abs(asked[1] - realised[1]) < 0.005
    charts: list[tuple[Histogram, list[tuple[str, float]]]] = [
        (
            rate_histogram(info.totals),
            [("asked and realised", asked[1])] if near else [asked, realised],
        )
    ]
    mean_tokens = info.totals.tokens / max(info.totals.clips, 1)
    charts.append((token_histogram(info.totals), [("mean", mean_tokens)]))
    if statistics is not None:
        mean = statistics.window_weighted_mean
        charts.append((elbo_histogram(statistics.bins), [("mean", mean)]))
    return "\n".join(_chart(chart, markers) for chart, markers in charts if chart.bars)


def _chart(histogram: Histogram, markers: list[tuple[str, float]]) -> str:
    note = f"Windows by {histogram.axis}."
    if histogram.num_zero:
        note += f" {histogram.num_zero:,} windows hold no information at all and are not drawn."
    return (
        f"<section>\n<h2>{escape(histogram.title)}</h2>\n<p>{escape(note)}</p>\n"
        f"<figure>{histogram_svg(histogram, markers=markers)}</figure>\n</section>"
    )


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
    totals = info.totals
    rows = [
        ("Licence", info.licence),
        ("Tokenizer", info.tokenizer.name),
        ("Fingerprint", info.tokenizer.fingerprint),
        ("Windows", settings_text(info.window)),
        ("Frames", settings_text(info.space)),
        ("Formats", ", ".join(info.formats)),
        ("ELBO", f"{info.elbo_unit}; {info.elbo_sign}"),
        ("Tokens at full rate", f"{totals.cells:,}"),
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
