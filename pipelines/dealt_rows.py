"""A window and its share of the budget, as the row that is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from infotok_core.router import select
from schemas.dealing import TokenDealer
from schemas.tokens import token_row
from schemas.windows import StreamFacts, WindowAnalysis

__all__ = ["dealt_row"]


def dealt_row(
    window: WindowAnalysis,
    dealer: TokenDealer,
    facts: StreamFacts,
    video: Mapping[str, Any],
    *,
    tokenizer: str,
    num_codes: int,
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """The token row of a window; the dealer counts it.

    Args:
        video: Of the plan: ``video_id`` and ``uri``.
        tokenizer: Fingerprint.
        num_codes: Size of its vocabulary.
        extra: Values of the further manifest columns.
    """
    count, rate = dealer.deal(window.information)
    keep = select(window.information.reshape(-1), count)
    return token_row(
        window,
        np.asarray(keep, bool).reshape(window.codes.shape),
        facts=facts,
        video=video["video_id"],
        source=video["uri"],
        tokenizer=tokenizer,
        rate_target=rate,
        num_codes=num_codes,
        extra=extra,
    )
