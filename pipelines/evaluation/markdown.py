"""How the tables of an evaluation are written in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from schemas.evaluation import Outcome

__all__ = ["Row", "code", "number", "passes", "signed", "table", "time_ms"]

Row = Sequence[str]


def table(title: str, head: Row, rows: Sequence[Row], note: str = "") -> str:
    """A headed table with a note below; nothing at all without rows."""
    if not rows:
        return ""
    lines = [f"## {title}", "", _line(head), _line(["---"] * len(head)), *map(_line, rows)]
    return "\n".join([*lines, *(["", note] if note else [])])


def code(text: str) -> str:
    """Literally, whatever is in it: names of files may hold anything."""
    text = " ".join(text.splitlines())
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    room = " " if longest else ""
    return f"{fence}{room}{text}{room}{fence}"


def signed(value: float) -> str:
    """A difference in dB; what rounds to nothing has no minus."""
    return f"{round(value, 2) + 0.0:+.2f}"


def number(value: float | None, digits: int) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def passes(outcome: Outcome) -> str:
    """Encoder and decoder passes of a clip, on average."""
    encoder, decoder = (
        sum(counts) / len(counts) for counts in (outcome.encoder_passes, outcome.decoder_passes)
    )
    return f"{encoder:g} + {decoder:.3g}"


def time_ms(wall_ms: float, cpu_ms: float | None) -> str:
    """Wall time, and CPU time where it was measured."""
    return f"{wall_ms:.0f}" if cpu_ms is None else f"{wall_ms:.0f} ({cpu_ms:.0f})"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
