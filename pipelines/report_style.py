"""The look of ``report.html``: system fonts, one accent, light and dark."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root {
  --paper: #fcfcfa; --card: #ffffff; --ink: #1c1f23; --soft: #626a73; --line: #e4e5e1;
  --bar: #2f6690; --mark: #b4501e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --card: #1b1f23; --ink: #e8e9ea; --soft: #9aa3ad; --line: #2d3338;
    --bar: #6ba7d1; --mark: #ec9a63;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
main { max-width: 820px; margin: 0 auto; padding: 48px 24px 72px; }
h1 { margin: 0 0 6px; font-size: 28px; font-weight: 650; letter-spacing: -0.01em; }
h2 { margin: 0 0 2px; font-size: 17px; font-weight: 620; }
p { margin: 0 0 4px; color: var(--soft); overflow-wrap: anywhere; }
section { margin-top: 40px; }
figure { margin: 12px 0 0; }
code { font: 12.5px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
.tiles {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(118px, 1fr)); gap: 1px;
  margin: 28px 0 0; border: 1px solid var(--line); border-radius: 10px; overflow: hidden;
  background: var(--line);
}
.tiles div { padding: 14px 16px; background: var(--card); }
.tiles dt { color: var(--soft); font-size: 13px; }
.tiles dd { margin: 2px 0 0; font-size: 20px; font-weight: 620; white-space: nowrap; }
.tiles small { display: block; color: var(--soft); font-size: 12px; font-weight: 400; }
svg {
  display: block; width: 100%; height: auto; padding: 8px; background: var(--card);
  border: 1px solid var(--line); border-radius: 10px;
}
svg text { fill: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums; }
svg .mid { text-anchor: middle; }
svg .end { text-anchor: end; }
svg .grid { stroke: var(--line); }
svg .base { stroke: var(--soft); }
svg .bar { fill: var(--bar); }
svg .bar:hover { fill: var(--mark); }
svg .mark { stroke: var(--mark); stroke-dasharray: 3 3; }
svg .mark-label { fill: var(--mark); }
.scroll { margin-top: 12px; overflow-x: auto; }
table { width: 100%; border-collapse: collapse; }
th, td {
  padding: 8px 14px 8px 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; font-weight: 400; overflow-wrap: anywhere;
}
thead th { color: var(--soft); font-size: 13px; }
tbody th { white-space: nowrap; overflow-wrap: normal; }
.reasons tbody th { font: 12.5px/1.9 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
.facts tbody th { color: var(--soft); }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.share {
  height: 6px; min-width: 2px; margin: 8px 0 4px; border-radius: 3px; background: var(--bar);
}
ul { margin: 0; padding: 0; list-style: none; color: var(--soft); font-size: 13px; }
li code { color: var(--ink); margin-right: 6px; }
"""
