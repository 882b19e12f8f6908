"""Whole tokens for windows, one after the other, by the rule of the corpus."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from schemas.rates import RateRule
from schemas.token_rules import TokenRule

__all__ = ["Rule", "TokenDealer"]

Rule = Annotated[RateRule | TokenRule, Field(discriminator="budget")]
"""How a corpus got its tokens; stored in ``meta/info.json``."""


class TokenDealer:
    """Deals whole tokens to windows one after the other; mutable, for one shard.

    With an exact rule the fraction that one window's rounding gains or loses is handed on to the
    next, so a shard is off by one token at most. Windows that resemble each other ask for the same
    fraction: rounded each for itself they would all lose it, or all gain it (measured: 0.24 % of
    the budget over a long static video on a grid of 144). The other rules round to the nearest.
    """

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._carry = 0.5

    def deal(self, information: NDArray[np.float16]) -> tuple[int, float]:
        """Tokens for the next window, at least 1, and the rate that the rule asks for it.

        Args:
            information: Its map, of any shape.

        Raises:
            ValueError: As `units.window_sum`.
        """
        cells = information.size
        asked, rate = self._rule.asked(information)
        count = min(max(math.floor(asked + self._carry), 1), cells)
        if self._rule.is_exact:
            self._carry += asked - count
        return count, rate
