"""Hypothesis strategies and small builders for the stored things, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from schemas.ids import video_id
from schemas.statistics import ElboAccumulator, ElboBins
from schemas.token_bins import TokenAccumulator, TokenBins
from schemas.tokens import NUM_CODES, token_row
from schemas.windows import StreamFacts, WindowAnalysis, WindowSpan

TOKENIZER = "f" * 64
FACTS = StreamFacts(
    codec="h264",
    container="mov,mp4,m4a,3gp,3g2,mj2",
    pix_fmt="yuv420p",
    source_width=1920,
    source_height=1080,
    width=64,
    height=64,
    rotation=0,
    source_fps=29.97,
    fps=29.97,
    duration_s=12.5,
)

paths = st.binary(min_size=1, max_size=40) | st.text(min_size=1, max_size=20).map(
    lambda text: text.encode("utf-8", "surrogatepass")
)
"""File names as bytes: any bytes, and likely text."""

positions = st.integers(1, 12_000)
float16_bits = st.integers(0, 0x7BFF)
"""Every finite non-negative float16."""


@st.composite
def window_sums(draw: st.DrawFn, max_elbo: int = 2 << 24) -> tuple[int, int]:
    """(total in 2**-24, positions) of one window; dark windows are likely."""
    tokens = draw(positions)
    elbo = draw(st.just(0) | st.integers(0, 1 << 12) | st.integers(0, max_elbo))
    return elbo * tokens + draw(st.integers(0, tokens - 1)) * (elbo > 0), tokens


def token_bins_of(maps: Sequence[NDArray[np.float16]], min_rate: float = 1 / 16) -> TokenBins:
    """The scores of the tokens of some windows."""
    accumulator = TokenAccumulator(min_rate)
    for one in maps:
        accumulator.add(one)
    return accumulator.freeze()


def bins_of(windows: Sequence[tuple[int, int]]) -> ElboBins:
    """The bins of some windows."""
    accumulator = ElboAccumulator()
    for total, tokens in windows:
        accumulator.add(total, tokens)
    return accumulator.freeze()


@st.composite
def information_maps(
    draw: st.DrawFn, *, min_cells: int = 16, max_cells: int = 80
) -> NDArray[np.float16]:
    """The map of one window, flat; equal values and dark windows are likely."""
    cells = draw(st.integers(min_cells, max_cells))
    bits = draw(st.just([0]) | st.lists(float16_bits, min_size=1, max_size=cells))
    return np.resize(np.array(bits, np.uint16), cells).view(np.float16)


elbo_bins = st.lists(window_sums(), max_size=8).map(bins_of)


def analysis(
    seed: int,
    *,
    window_index: int = 0,
    shape: tuple[int, int, int] = (3, 4, 4),
    num_frames: int = 9,
) -> WindowAnalysis:
    """A seeded window."""
    rng = np.random.default_rng([seed, window_index])
    return WindowAnalysis(
        span=WindowSpan(
            window_index=window_index,
            start_frame=num_frames * window_index,
            num_frames=num_frames,
            start_time_s=window_index / 3,
            end_time_s=(window_index + 1) / 3,
        ),
        codes=rng.integers(0, NUM_CODES, shape).astype(np.uint16),
        information=rng.gamma(2.0, 0.05, shape).astype(np.float16),
    )


def token_rows(uri: str, num_windows: int, **extra: object) -> list[dict[str, Any]]:
    """Rows of one video, half of the tokens kept or so."""
    rows: list[dict[str, Any]] = []
    for index in range(num_windows):
        window = analysis(len(uri), window_index=index)
        mask = window.information > np.median(window.information)
        rows.append(
            token_row(
                window,
                mask,
                facts=FACTS,
                video=video_id(uri),
                source=uri,
                tokenizer=TOKENIZER,
                rate_target=0.51,
                extra=extra,
            )
        )
    return rows
