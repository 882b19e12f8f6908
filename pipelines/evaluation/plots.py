"""An evaluation as pictures, for a talk: one message each, legible from the last row.

matplotlib is an optional dependency and is imported when something is drawn. No pyplot: nothing
global is touched, and no display is needed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pipelines.evaluation.plot_bars import draw_gains, draw_mean_gains, draw_selections
from pipelines.evaluation.plot_curves import (
    draw_clips,
    draw_router_curves,
    draw_selection_curves,
    draw_tokens,
)
from pipelines.evaluation.plot_style import STYLE
from schemas.evaluation import EvaluationReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["require_plots", "write_plots"]

_SIZE_IN = (10.0, 5.625)
"""16:9, as slides are."""
_DPI = 160
_MARGIN_IN = 0.1
_MISSING = "pictures need matplotlib, which is the extra 'plots': pip install 'infotok[plots]'"


def require_plots() -> None:
    """Make sure that there can be pictures, before hours of work.

    Raises:
        ValueError: If matplotlib is not installed; the message names the extra.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError(_MISSING)


def write_plots(report: EvaluationReport, folder: Path) -> list[Path]:
    """Draw everything that the evaluation has the numbers for.

    Args:
        report: From here or from a JSON file.
        folder: Created if absent; files of the same names are replaced.

    Returns:
        The files, whose stems `tables.evaluation_markdown` knows.

    Raises:
        ValueError: If matplotlib is not installed.
    """
    require_plots()
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # Each says whether there was anything to draw.
    drawings: dict[str, Callable[[EvaluationReport, Figure], bool]] = {
        "rate_distortion": draw_router_curves,
        "rate_distortion_selections": draw_selection_curves,
        "routers": draw_gains,
        "routers_mean": draw_mean_gains,
        "selections": draw_selections,
        "tokens": draw_tokens,
        "clips": draw_clips,
    }
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    with rc_context(cast("Any", STYLE)):
        for name, draw in drawings.items():
            layout = ConstrainedLayoutEngine(w_pad=_MARGIN_IN, h_pad=_MARGIN_IN)
            figure = Figure(figsize=_SIZE_IN, layout=layout)
            if draw(report, figure):
                path = folder / f"{name}.png"
                # Without the version of matplotlib, which would change files and no pictures.
                figure.savefig(path, dpi=_DPI, metadata={"Software": None})
                written.append(path)
    return written
