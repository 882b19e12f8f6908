"""Parts of the report that rows, videos and the work folder tell: charts, players, speed."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from statistics import median

from pipelines.charts import has_charts, scatter_svg, timeline_svg
from pipelines.observe import format_duration
from pipelines.report_clips import ReportVideo, WindowFacts
from pipelines.wording import compact, num_bytes_text, significant
from schemas.dealing import Rule
from schemas.info import CorpusInfo
from schemas.timings import StageTiming
from schemas.token_rules import TokenRule

__all__ = ["chart", "charts", "scatter", "speed", "videos"]

_DOTS = 500
"""Of a scatter plot; more would hide each other, and make the page large."""
_CURVE_STEPS = 64
_NO_CHARTS = (
    "<p>Charts need matplotlib: <code>pip install 'infotok[plots]'</code>, then "
    "<code>infotok report</code>. The histograms are in the dataset card, too.</p>"
)


def charts(figures: str) -> str:
    """The section of all figures of the corpus; empty: they cannot be drawn here."""
    inside = f'<div class="charts">\n{figures}\n</div>' if figures else _NO_CHARTS
    return f"<section>\n<h2>Distribution</h2>\n{inside}\n</section>"


def chart(title: str, note: str, svg: str) -> str:
    """One figure."""
    return (
        f'<figure class="chart">\n<figcaption><h3>{escape(title)}</h3><p>{escape(note)}</p>'
        f"</figcaption>\n{svg}\n</figure>"
    )


def scatter(windows: Sequence[WindowFacts], info: CorpusInfo) -> str:
    """Rate over information, with the rule that made the rates; empty without windows."""
    if not windows:
        return ""
    dots = windows[:: -(-len(windows) // _DOTS)]
    curve = _curve(info.routing, 1.05 * max(window.elbo for window in dots))
    svg = scatter_svg(
        [(window.elbo, window.rate) for window in dots],
        tips=[_tip(window) for window in dots],
        curve=curve,
        axis=f"information: {info.elbo_unit}",
    )
    shown = "Each dot is a window"
    if len(dots) < info.totals.clips:
        shown = f"{len(dots):,} of {info.totals.clips:,} windows"
    rule = "; dashed: the rule" if curve else ""
    return chart("Rate and information", f"{shown}{rule}.", svg)


def _curve(rule: Rule, top: float) -> list[tuple[float, float]]:
    """The rate by the information up to ``top``; empty if that alone does not tell it."""
    if isinstance(rule, TokenRule):
        return []
    steps = [top * step / _CURVE_STEPS for step in range(_CURVE_STEPS + 1)]
    return [(step, rule.rate_at(step)) for step in steps]


def _tip(window: WindowFacts) -> str:
    return (
        f"{window.source}, window {window.window_index}: {window.num_tokens:,} tokens, "
        f"rate {window.rate:.3f}, information {significant(window.elbo)}"
    )


def videos(shown: Sequence[ReportVideo], without_originals: str) -> str:
    """A card per video: player, figures, tokens per second; empty without videos."""
    if not shown:
        return ""
    ordered = sorted(shown, key=_mean_elbo)
    # One axis for all, so that one sees who gets the tokens.
    top = 1.12 * max(
        window.most_tokens_per_second for video in shown for window in _whole(video.windows)
    )
    note = "From the least to the most informative."
    if any(video.mp4 for video in shown):
        note += " Each plays its busiest windows, the shaded part of its timeline."
    reason = f'\n<p class="notice">{escape(without_originals)}</p>' if without_originals else ""
    cards = "\n".join(_card(video, top) for video in ordered)
    return f"<section>\n<h2>Videos</h2>\n<p>{note}</p>{reason}\n{cards}\n</section>"


def _whole(windows: Sequence[WindowFacts]) -> list[WindowFacts]:
    """Without a short tail: its one frame is padded to many, and would dwarf the others."""
    usual_s = median(window.end_time_s - window.start_time_s for window in windows)
    return [w for w in windows if w.end_time_s - w.start_time_s >= 0.5 * usual_s]


def _mean_elbo(video: ReportVideo) -> float:
    return sum(window.elbo for window in video.windows) / len(video.windows)


def _card(video: ReportVideo, top: float) -> str:
    name = video.windows[0].source
    player = ""
    if video.mp4 is not None:
        labels = "".join(f"<span>{escape(panel)}</span>" for panel in video.panels)
        data = base64.b64encode(video.mp4).decode()
        player = (
            f'<div class="player"><div class="panels">{labels}</div>\n'
            f'<video autoplay loop muted playsinline aria-label="{escape(name)}: '
            f'{escape(", ".join(video.panels))}" src="data:video/mp4;base64,{data}"></video></div>'
        )
    return (
        f'<article class="video">\n<h3><code>{escape(name)}</code></h3>\n{player}\n'
        f'<div class="aside">\n{_figures(video)}\n{_timeline(video, top)}\n</div>\n</article>'
    )


def _figures(video: ReportVideo) -> str:
    tokens = sum(window.num_tokens for window in video.windows)
    cells = sum(window.num_tokens / window.rate for window in video.windows)
    seconds = sum(window.end_time_s - window.start_time_s for window in video.windows)
    figures = [
        ("rate", f"{tokens / cells:.3f}"),
        ("tokens / s", compact(round(tokens / max(seconds, 1e-9)))),
    ]
    if video.psnr_db is not None and video.ssim is not None:
        figures += [("PSNR", f"{video.psnr_db:.2f} dB"), ("SSIM", f"{video.ssim:.3f}")]
    cells_html = "".join(
        f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in figures
    )
    return f'<dl class="figures">{cells_html}</dl>'


def _timeline(video: ReportVideo, top: float) -> str:
    if not has_charts():
        return ""
    spans = [
        (w.start_time_s, w.end_time_s, w.tokens_per_second, w.most_tokens_per_second)
        for w in video.windows
    ]
    played = (video.played[0].start_time_s, video.played[-1].end_time_s)
    svg = timeline_svg(spans, top=top, shown=played if video.mp4 else None)
    note = f"tokens per second in {len(video.windows):,} windows; dashed: full rate"
    return f'<figure class="timeline"><figcaption>{note}</figcaption>\n{svg}</figure>'


def speed(timings: Sequence[StageTiming]) -> str:
    """A line per stage, over all starts of the driver; empty without timings."""
    if not timings:
        return ""
    heads = ("Stage", "Starts", "Time", "Finished", "Windows / s", "Tokens / s", "Source / s")
    head = "".join(f"<th scope=col{_number(index)}>{name}</th>" for index, name in enumerate(heads))
    stages = list(dict.fromkeys(timing.stage for timing in timings))
    lines = "\n".join(
        _speed_line([timing for timing in timings if timing.stage == stage]) for stage in stages
    )
    return (
        "<section>\n<h2>Throughput</h2>\n<p>Wall time of each stage, as the driver saw it; in pass "
        "one tokens are counted at full rate. Starts that were killed outright are not counted."
        '</p>\n<div class="scroll"><table class="speed">\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{lines}\n</tbody></table></div>\n</section>"
    )


def _number(index: int) -> str:
    return " class=number" if index else ""


def _speed_line(timings: Sequence[StageTiming]) -> str:
    seconds = sum(timing.seconds for timing in timings)

    def pace(values: Iterable[int]) -> float:
        return sum(values) / max(seconds, 1e-9)

    source = pace(timing.source_bytes for timing in timings)
    windows = pace(timing.counts.get("windows", 0) for timing in timings)
    what = "shards" if timings[0].stage == "tokenise" else "videos"
    cells = (
        f"{len(timings):,}",
        format_duration(seconds),
        f"{sum(timing.items for timing in timings):,} {what}",
        significant(windows),
        compact(round(pace(timing.counts.get("tokens", 0) for timing in timings))),
        num_bytes_text(source) if source else "–",
    )
    line = "".join(f"<td class=number>{escape(cell)}</td>" for cell in cells)
    return f"<tr><th scope=row>{escape(timings[0].stage)}</th>{line}</tr>"
