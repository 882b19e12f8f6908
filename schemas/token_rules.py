"""One threshold for all tokens of a corpus: a window keeps those of its tokens that score above it.

No rate of a window is asked for: it follows from how many of its tokens are worth it. The threshold
is solved for the budget on `token_bins`. What it gains over N ~ ELBO: docs/evaluation.md.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from schemas.documents import Part
from schemas.token_bins import (
    TokenBins,
    least_tokens,
    score_bin,
    score_bin_start,
    token_score_bins,
)

__all__ = ["TokenRule", "solve_token_rule"]

_Share = Annotated[float, Field(gt=0, le=1)]


class TokenRule(Part):
    """Which tokens are kept; stored in ``meta/info.json`` as it was used.

    Attributes:
        budget: Tells this rule from a `rates.RateRule`.
        target: The asked share of kept tokens over the corpus.
        threshold: Lowest score of the bin that the budget ends in, in ELBO ** 0.5. Tokens of higher
            bins are kept.
        fraction: Of the tokens in that bin beyond ``min_rate``, how many a window keeps.
        min_rate: Least rate of a window, see `token_bins.least_tokens`.
    """

    budget: Literal["token_threshold"] = "token_threshold"
    target: _Share
    threshold: Annotated[float, Field(ge=0)]
    fraction: Annotated[float, Field(ge=0, le=1)]
    min_rate: _Share

    @property
    def is_measured(self) -> bool:
        """Whether the threshold comes from the statistics of the corpus."""
        return True

    @property
    def is_exact(self) -> bool:
        """Whether the corpus meets the target to the token."""
        return True

    def asked(self, information: NDArray[np.float16]) -> tuple[float, float]:
        """Tokens that a window asks for, not rounded, and the share of its positions they are.

        Args:
            information: Its map, of any shape.
        """
        bins = token_score_bins(information)
        least, key = least_tokens(self.min_rate, bins.size), score_bin(self.threshold)
        sure = max(int((bins > key).sum()), least)
        most = max(int((bins >= key).sum()), least)
        count = sure + self.fraction * (most - sure)
        return count, count / bins.size


def solve_token_rule(bins: TokenBins, *, rate: float) -> TokenRule:
    """The rule by which these windows keep ``rate`` of their tokens.

    The sum over the windows of what they ask for is exact, but for windows so small that one token
    is more than their least rate.

    Args:
        bins: The corpus, or a sample of it.
        rate: Asked share in [bins.min_rate, 1].

    Raises:
        ValueError: If ``rate`` is not in that range.
    """
    if not bins.min_rate <= rate <= 1:
        raise ValueError(f"rate must be in [min_rate, 1] = [{bins.min_rate}, 1], not {rate}")
    left = max(Fraction(rate) * bins.tokens - bins.always, Fraction(0))
    key, fraction = 0, Fraction(0)
    for entry in reversed(bins.bins):
        key, fraction = entry.key, min(left / entry.tokens, Fraction(1))
        if left <= entry.tokens:
            break
        left -= entry.tokens
    return TokenRule(
        target=rate,
        threshold=score_bin_start(key),
        fraction=float(fraction),
        min_rate=bins.min_rate,
    )
