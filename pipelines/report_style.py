"""The look of ``report.html``: system fonts, one accent, light and dark, wide and narrow."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root {
  --paper: #fafaf7; --card: #ffffff; --ink: #1c1f23; --soft: #626a73; --line: #e4e5e1;
  --bar: #2f6690; --mark: #b4501e; --fill: #f6e7d3;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --card: #1b1f23; --ink: #e8e9ea; --soft: #9aa3ad; --line: #2d3338;
    --bar: #6ba7d1; --mark: #ec9a63; --fill: #3a3026;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, Inter, sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 48px 24px 72px; }
h1 { margin: 0 0 6px; font-size: 30px; font-weight: 650; letter-spacing: -0.015em; }
h2 { margin: 0 0 2px; font-size: 20px; font-weight: 630; letter-spacing: -0.01em; }
h3 { margin: 0; font-size: 15px; font-weight: 620; }
p { margin: 0 0 4px; color: var(--soft); overflow-wrap: anywhere; }
section { margin-top: 48px; }
figure { margin: 0; }
code { font: 12.5px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
.notice { color: var(--mark); }
.tiles {
  display: flex; flex-wrap: wrap; gap: 1px; margin: 28px 0 0; border: 1px solid var(--line);
  border-radius: 12px; overflow: hidden; background: var(--line);
}
.tiles div { flex: 1 1 132px; padding: 14px 16px; background: var(--card); }
.tiles div:first-child:nth-last-child(n + 8), .tiles div:nth-last-child(n + 8) ~ div {
  flex-basis: max(132px, 22%);
}
.tiles dt { color: var(--soft); font-size: 13px; }
.tiles dd { margin: 2px 0 0; font-size: 22px; font-weight: 620; white-space: nowrap; }
.tiles small { display: block; color: var(--soft); font-size: 12px; font-weight: 400; }
.charts {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 16px;
  margin-top: 14px;
}
.chart, .video {
  padding: 16px 18px; background: var(--card); border: 1px solid var(--line);
  border-radius: 12px;
}
.chart { display: flex; flex-direction: column; justify-content: space-between; gap: 8px; }
.chart p { font-size: 13px; }
.video { display: grid; gap: 12px 24px; margin-top: 16px; }
.video h3 { grid-column: 1 / -1; overflow-wrap: anywhere; }
.video h3 code { font-size: 13px; }
@media (min-width: 900px) {
  .video:has(.player) { grid-template-columns: minmax(0, 17fr) minmax(0, 9fr); }
}
.panels {
  display: grid; grid-auto-flow: column; grid-auto-columns: 1fr; margin-bottom: 4px;
  color: var(--soft); font-size: 12px; text-align: center;
}
video { display: block; width: 100%; height: auto; border-radius: 6px; background: #181818; }
.timeline { max-width: 520px; }
.figures { display: flex; flex-wrap: wrap; gap: 6px 22px; margin: 0 0 10px; }
.figures dt { color: var(--soft); font-size: 12px; }
.figures dd { margin: 0; font-size: 17px; font-weight: 620; white-space: nowrap; }
figcaption { color: var(--soft); font-size: 12px; }
figcaption h3 { color: var(--ink); }
svg { display: block; width: 100%; height: auto; }
svg text { font-family: inherit !important; font-variant-numeric: tabular-nums; }
svg .tip:hover path, svg .tip:hover use { fill: var(--mark) !important; opacity: 1 !important; }
.scroll { margin-top: 12px; overflow-x: auto; }
table { width: 100%; border-collapse: collapse; }
th, td {
  padding: 8px 14px 8px 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; font-weight: 400; overflow-wrap: anywhere;
}
thead th { color: var(--soft); font-size: 13px; white-space: nowrap; }
tbody th { white-space: nowrap; overflow-wrap: normal; }
.reasons tbody th { font: 12.5px/1.9 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
.reasons th:last-child { width: 60%; }
.facts tbody th { color: var(--soft); }
.speed td { white-space: nowrap; }
.number { text-align: right !important; font-variant-numeric: tabular-nums; }
.share {
  height: 6px; min-width: 2px; margin: 8px 0 4px; border-radius: 3px; background: var(--bar);
}
ul { margin: 0; padding: 0; list-style: none; color: var(--soft); font-size: 13px; }
li code { color: var(--ink); margin-right: 6px; }
@media (max-width: 560px) {
  main { padding: 28px 14px 48px; }
  .chart, .video { padding: 12px; }
  h1 { font-size: 25px; }
}
@media print {
  section, .chart, .video { break-inside: avoid; }
}
"""
