"""From the ELBO of a window to its number of tokens, by a rule that is solved once per corpus.

A rule says ``rate_i = clip(scale * e_i ** exponent, min_rate, 1)``. With ``exact`` the scale is
solved so that the token-weighted mean of the clipped rates is the asked one; with ``paper`` it is
rate / E[e] (Eq. 4), whose realised mean drifts as soon as windows clip. The solution is computed in
rational numbers and rounded once, powers are made of square roots: nothing depends on the order of
the bins or on a maths library.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from schemas.bins import ElboBin, ElboBins, bin_bounds
from schemas.documents import Part
from schemas.units import window_sum

__all__ = [
    "Exponent",
    "RateRule",
    "num_tokens",
    "paper_scale",
    "solve_rule",
    "solve_scale",
    "window_rate",
]

_Share = Annotated[float, Field(gt=0, le=1)]
_UNIT = Fraction(1, 1 << 24)

Exponent = Annotated[float, Field(ge=0.25, le=1, multiple_of=0.25)]
"""Of the ELBO in a rule; 1 in the paper. Quarters are what square roots give."""


def window_rate(
    total: int, tokens: int, *, scale: float, min_rate: float, exponent: float = 1.0
) -> float:
    """``clip(scale * e ** exponent, min_rate, 1)`` of one window, without `RateRule.zero_rate`.

    Args:
        total: `units.window_sum` of its information, in units of 2**-24.
        tokens: Its positions t*h*w.
        scale: 1 / ELBO ** exponent, >= 0.
        min_rate: Least share of kept tokens.
        exponent: An `Exponent`.
    """
    return min(max(scale * _power(math.ldexp(total / tokens, -24), exponent), min_rate), 1.0)


def _power(elbo: float, exponent: float) -> float:
    # IEEE 754 has one correct square root; of `pow` every library has its own.
    if exponent == 1:
        return elbo
    half = math.sqrt(elbo)
    return {0.25: math.sqrt(half), 0.5: half, 0.75: half * math.sqrt(half)}[exponent]


def num_tokens(rate: float, cells: int) -> int:
    """Tokens a window keeps: ``rate * cells`` rounded half up, at least 1, at most ``cells``."""
    return min(max(math.floor(rate * cells + 0.5), 1), cells)


class RateRule(Part):
    """How many tokens a window gets; stored in ``meta/info.json`` as it was used.

    Attributes:
        budget: How it came about; ``expected`` is ``paper`` with a given mean.
        target: The asked token-weighted mean rate.
        scale: In 1 / ELBO ** exponent; 0 keeps every window at ``min_rate``.
        min_rate: Least rate of a window with information.
        zero_rate: Rate of a window without any (sum exactly 0): ``min_rate``, except where the
            target cannot be met otherwise. If no window has information, all get ``target``. If
            all others at rate 1 are not enough, these share what is left of the budget.
        exponent: Of the ELBO. Below 1 rates lie closer together.
    """

    budget: Literal["exact", "paper", "expected", "static"]
    target: _Share
    scale: Annotated[float, Field(ge=0)]
    min_rate: _Share
    zero_rate: _Share
    exponent: Exponent = 1.0

    @classmethod
    def static(cls, rate: float) -> RateRule:
        """Every window gets ``rate``, whatever it holds."""
        return cls(budget="static", target=rate, scale=0.0, min_rate=rate, zero_rate=rate)

    @classmethod
    def paper(cls, bins: ElboBins, *, rate: float, min_rate: float) -> RateRule:
        """Eq. 4 with the measured E[e]: the window-weighted mean, clipping not made up for.

        A corpus without any information has E[e] = 0 and keeps ``rate`` everywhere.
        """
        if bins.weighted == 0:
            rule = cls.static(rate)
            return rule.model_copy(update={"budget": "paper"})
        scale = paper_scale(bins, rate=rate)
        return cls(budget="paper", target=rate, scale=scale, min_rate=min_rate, zero_rate=min_rate)

    @classmethod
    def expected(cls, expected_elbo: float, *, rate: float, min_rate: float) -> RateRule:
        """Eq. 4 with a given E[e] > 0, say from another corpus."""
        return cls(
            budget="expected",
            target=rate,
            scale=rate / expected_elbo,
            min_rate=min_rate,
            zero_rate=min_rate,
        )

    @property
    def is_measured(self) -> bool:
        """Whether the scale comes from the statistics of the corpus."""
        return self.budget in ("exact", "paper")

    @property
    def is_exact(self) -> bool:
        """Whether the corpus meets the target to the token."""
        return self.budget == "exact"

    def asked(self, information: NDArray[np.float16]) -> tuple[float, float]:
        """Tokens that a window asks for, not rounded, and its rate.

        Args:
            information: Its map, of any shape.
        """
        rate = self.rate(window_sum(information), information.size)
        return rate * information.size, rate

    def rate(self, total: int, tokens: int) -> float:
        """Rate in (0, 1] of one window; arguments as for `window_rate`."""
        if total == 0:
            return self.zero_rate
        return window_rate(
            total, tokens, scale=self.scale, min_rate=self.min_rate, exponent=self.exponent
        )

    def rate_at(self, elbo: float) -> float:
        """Rate of a window of this ELBO, for drawing."""
        if elbo == 0 or self.budget == "static":
            return self.zero_rate
        return min(max(self.scale * _power(elbo, self.exponent), self.min_rate), 1.0)


def paper_scale(bins: ElboBins, *, rate: float) -> float:
    """The scale of Eq. 4: ``rate`` / window-weighted mean ELBO.

    Raises:
        ValueError: If there is no information to divide by.
    """
    mean = bins.window_weighted_mean
    if mean == 0:
        raise ValueError("E[ELBO] is 0: there is no window with information, so no scale")
    return rate / mean


def solve_scale(bins: ElboBins, *, rate: float, min_rate: float) -> float:
    """The scale of `solve_rule`, without its `RateRule.zero_rate`."""
    return solve_rule(bins, rate=rate, min_rate=min_rate).scale


def solve_rule(bins: ElboBins, *, rate: float, min_rate: float, exponent: float = 1.0) -> RateRule:
    """The rule whose token-weighted mean rate over these windows is ``rate``.

    Each bin stands for its own mean. Only bins that straddle a clipping point are not exact then,
    and since a bin is 1/1024 wide the mean is off by 0.025 % at most.

    Args:
        bins: The corpus, or a sample of it.
        rate: Asked mean in [min_rate, 1].
        min_rate: Least rate of a window, in (0, 1].
        exponent: Of the ELBO, an `Exponent`.

    Raises:
        ValueError: If ``rate`` is not in [min_rate, 1]: clipping makes every mean larger.
    """
    if not 0 < min_rate <= rate <= 1:
        raise ValueError(f"rate must be in [min_rate, 1] = [{min_rate}, 1], not {rate}")
    informative = [entry for entry in bins.bins if entry.weighted]
    all_tokens = bins.tokens
    rich_tokens = sum(entry.tokens for entry in informative)
    zero_tokens = all_tokens - rich_tokens
    asked, floor = Fraction(rate) * all_tokens, Fraction(min_rate)

    zero_rate = min_rate
    if asked >= rich_tokens + floor * zero_tokens:
        # Even everything at rate 1 is not more than enough: saturate, the rest goes to black ones.
        lowest = bin_bounds(informative[0].key)[0] if informative else math.inf
        scale = 1 / _power(float(lowest), exponent)
        if zero_tokens:
            zero_rate = float((asked - rich_tokens) / zero_tokens)
    else:
        weights = [_weight(entry, exponent) for entry in informative]
        scale = float(_crossing(informative, weights, asked - floor * zero_tokens, floor))
    return RateRule(
        budget="exact", target=rate, scale=scale, min_rate=min_rate, zero_rate=zero_rate,
        exponent=exponent,
    )  # fmt: skip


def _weight(entry: ElboBin, exponent: float) -> int:
    """Tokens of a bin times its mean ELBO ** exponent, in units of 2**-24."""
    if exponent == 1:
        return entry.weighted
    mean = float(entry.weighted * _UNIT / entry.tokens)
    return max(round(Fraction(_power(mean, exponent)) * entry.tokens / _UNIT), 1)


def _crossing(
    bins: list[ElboBin], weights: list[int], asked: Fraction, floor: Fraction
) -> Fraction:
    """Solve ``sum clip(s * W_b, floor * T_b, T_b) = asked`` for s by walking along its corners."""
    corners: list[tuple[Fraction, int, Fraction]] = []
    for entry, weight in zip(bins, weights, strict=True):
        per_token = Fraction(entry.tokens) / (weight * _UNIT)
        corners.append((floor * per_token, weight, -floor * entry.tokens))
        corners.append((per_token, -weight, Fraction(entry.tokens)))
    corners.sort()
    slope, constant = 0, floor * sum(entry.tokens for entry in bins)
    for corner, slope_change, constant_change in corners:
        if slope * _UNIT * corner + constant >= asked:
            break
        slope += slope_change
        constant += constant_change
    return (asked - constant) / (slope * _UNIT) if slope else Fraction(0)
