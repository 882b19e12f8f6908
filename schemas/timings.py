"""How long a stage of one run took: ``timings/{run_id}-{stage}.json`` in the work folder.

Nothing is computed from it. It is no part of the corpus: two runs that give the same bytes take
different times.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from schemas.documents import Document

__all__ = ["StageTiming"]

_Count = Annotated[int, Field(ge=0)]


class StageTiming(Document):
    """One stage of one start of the driver; what was found done when it started is not in it.

    Attributes:
        stage: ``analyse``, ``tokenise``, …
        run_id: The start of the driver.
        seconds: Wall time of the stage.
        items: Videos or shards that were finished.
        source_bytes: Size of these videos; 0 where the stage reads no video.
        counts: What else was counted: ``windows``, ``tokens`` (at full rate in pass one).
    """

    stage: str
    run_id: str
    seconds: Annotated[float, Field(ge=0)]
    items: _Count
    source_bytes: _Count
    counts: dict[str, _Count]
