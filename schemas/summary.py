"""What pass one came to, in counts: written once beside the statistics, read by `finalise`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from schemas.documents import Document
from schemas.failures import FailureReason

__all__ = ["AnalysisSummary"]

_Count = Annotated[int, Field(ge=0)]


class AnalysisSummary(Document):
    """Totals over all receipts of a plan.

    Attributes:
        plan_id: The plan they belong to.
        videos_listed: Videos of the plan; the sum of the next two.
        videos_analysed: Videos with at least one window.
        videos_quarantined: Videos that were set aside.
        windows: Windows of the analysed videos.
        positions: Their tokens at full rate.
        num_frames_decoded: Frames that came out of the decoders, of analysed videos.
        num_frames_dropped: Decoded frames that are in no window (resampling, dropped tails).
        source_bytes: Bytes of all listed objects.
        reasons: Quarantined videos for each reason.
    """

    plan_id: str
    videos_listed: _Count
    videos_analysed: _Count
    videos_quarantined: _Count
    windows: _Count
    positions: _Count
    num_frames_decoded: _Count
    num_frames_dropped: _Count
    source_bytes: _Count
    reasons: dict[FailureReason, _Count]
