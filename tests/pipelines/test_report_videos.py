"""The timelines of the report: what is compared with what."""

from __future__ import annotations

import re

from pipelines.report_clips import ReportVideo, WindowFacts
from pipelines.report_sections import videos


def window(index: int, start_s: float, end_s: float, tokens: int) -> WindowFacts:
    return WindowFacts(
        video_id="v", source="a.mp4", window_index=index, start_time_s=start_s, end_time_s=end_s,
        num_tokens=tokens, rate=0.5, elbo=0.1,
    )  # fmt: skip


def test_the_axis_shows_the_full_rate_and_no_short_tail_dwarfs_it():
    # One frame, padded to a window: 10,000 tokens a second.
    windows = (window(0, 0, 1, 500), window(1, 1, 2, 500), window(2, 2, 2.03, 300))
    page = videos([ReportVideo(windows=windows, played=windows[:1])], "")
    ticks = re.findall(r">([\d,.]+(?: k)?)</text>", page)
    assert "1,000" in ticks
    assert not any("k" in tick for tick in ticks)
    assert "3 windows; dashed: full rate" in page
    # A tip for each window, the tail too.
    assert page.count("tokens a second") == 3
