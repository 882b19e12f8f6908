"""Which share of its tokens a window keeps, and which tokens these are.

Rates follow equation 4 of the paper. Selection by default keeps exactly the asked number; the
published code's strict quantile, which keeps fewer, and none of a flat window's, goes by the name
``reference``.

Shapes: B windows, N = t*h*w tokens of one window.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "MIN_RATE",
    "Selection",
    "Strategy",
    "num_tokens",
    "num_tokens_batch",
    "select",
    "select_batch",
    "select_reference",
    "selection_scores",
    "training_mask",
    "training_ratios",
    "window_rates",
]

MIN_RATE = 1 / 16
"""Least share of tokens the global strategies give a window."""

Strategy = Literal["static", "global_elbo", "global_elbo_bin"]
"""``static``: every window the target. ``global_elbo``: in proportion to its information.
``global_elbo_bin``: the same in steps of a quarter. The published command line's ``elbo`` and
``uniform`` do what ``static`` does (facts section 3)."""

Selection = Literal["information", "r2l", "jump"]
"""Which tokens of a window survive its budget. ``information``: those whose cells come back worst.
``r2l``: each latent frame loses its tail, right to left in raster order, as ElasticTok and other
nested tokenizers drop. ``jump``: each latent frame thins out evenly: every fourth position survives
longest, then the ones beside them. The last two ignore the content (paper, table 3)."""

_BIN = 0.25
_JUMP = 4


def window_rates(
    elbos_B: NDArray[np.floating[Any]],
    *,
    strategy: Strategy,
    target: float,
    expected: float | None = None,
    min_rate: float = MIN_RATE,
) -> NDArray[np.floating[Any]]:
    """The rate of each window, in the precision of ``elbos_B``.

    Clipping moves the mean away from ``target``: who needs the corpus mean exact has to solve for
    the scale instead.

    Args:
        elbos_B: Mean information of each window, >= 0.
        strategy: See `Strategy`.
        target: In (0, 1].
        expected: E[ELBO] over the corpus, > 0; required by the global strategies.
        min_rate: Lower clip of the global strategies; ``static`` ignores it, as the published code.

    Raises:
        ValueError: If ``target`` is outside (0, 1], or ``expected`` is missing or not positive.
    """
    if not 0 < target <= 1:
        raise ValueError(f"target rate must be in (0, 1], not {target}")
    if strategy == "static":
        return np.full_like(elbos_B, target)
    if expected is None or not expected > 0:
        raise ValueError(f"strategy {strategy} needs an expected ELBO > 0, not {expected}")
    rates = elbos_B * target / expected
    rates = np.clip(rates, min_rate, 1)
    if strategy == "global_elbo_bin":
        rates = np.clip(np.round(rates / _BIN) * _BIN, min_rate, 1)
    return rates


def num_tokens(rate: float, n: int) -> int:
    """Tokens a window of ``n`` keeps at ``rate``: rounded half up, at least one, at most all."""
    return min(max(math.floor(rate * n + 0.5), 1), n)


def num_tokens_batch(rate_B: Tensor, n: int) -> Tensor:
    """`num_tokens` of each of a batch's rates on their own device, int64 ``[B]``, to the token."""
    # In the precision of a Python number: float32 products round to another side of a half.
    return (rate_B.double() * n + 0.5).floor().clamp(1, n).long()


def select(information: NDArray[np.floating[Any]], num_keep: int) -> NDArray[np.bool_]:
    """Keep exactly the ``num_keep`` positions of highest information; ties go to the lower index.

    Select on the precision that is stored: another one orders near-ties differently.

    Args:
        information: One window's map, of any shape; finite.
        num_keep: In 0 .. size.

    Returns:
        True where kept; same shape.

    Raises:
        ValueError: If ``num_keep`` is out of range or the information not finite.
    """
    if not 0 <= num_keep <= information.size:
        raise ValueError(f"cannot keep {num_keep} of {information.size} tokens")
    if not np.isfinite(information).all():
        raise ValueError("information is not finite: the reconstruction is not a number")
    order = np.argsort(-information, axis=None, kind="stable")
    keep = np.zeros(information.size, dtype=np.bool_)
    keep[order[:num_keep]] = True
    return keep.reshape(information.shape)


def select_reference(information: NDArray[np.floating[Any]], rate: float) -> NDArray[np.bool_]:
    """The published selection: strictly above the ``1 - rate`` quantile of the window.

    Without ties it keeps ``n - 1 - floor((1 - rate) * (n - 1))``, so rate 1 drops a token; all
    positions tied with the threshold are dropped, so a flat window keeps nothing.

    Args:
        information: One window's map, of any shape; compared in float32.
        rate: In (0, 1].
    """
    flat = torch.from_numpy(np.ascontiguousarray(information, dtype=np.float32)).flatten()
    threshold = torch.quantile(flat, 1 - rate)
    return (flat > threshold).numpy().reshape(information.shape)


def select_batch(information_BN: Tensor, num_keep_B: Tensor) -> Tensor:
    """`select` for a batch on its own device, ``[B, N]`` bool, each window with its own number."""
    order_BN = torch.argsort(information_BN, dim=1, descending=True, stable=True)
    rank_N = torch.arange(information_BN.shape[1], device=information_BN.device)
    chosen_BN = rank_N < num_keep_B.unsqueeze(1)
    return torch.zeros_like(chosen_BN).scatter(1, order_BN, chosen_BN)


def selection_scores(selection: Selection, information_Bthw: Tensor) -> Tensor:
    """Scores whose N highest, ties to the lower index, are the tokens to keep; same shape.

    One ranking serves every budget, so a smaller budget keeps a subset of what a larger one keeps,
    and ``select`` and ``select_batch`` serve every rule.

    Args:
        information_Bthw: See `token_information`; only its shape matters unless ``information``.
    """
    if selection == "information":
        return information_Bthw
    length = information_Bthw.shape[2] * information_Bthw.shape[3]
    place_L = torch.arange(length, device=information_Bthw.device)
    if selection == "jump":
        # 0, 4, 8, ..., then 1, 5, 9, ...: the rank of each position in that order.
        order_L = torch.argsort(place_L % _JUMP, stable=True)
        place_L = torch.empty_like(place_L).scatter(0, order_L, place_L)
    scores_hw = -place_L.to(information_Bthw.dtype).view(information_Bthw.shape[2:])
    return scores_hw.expand_as(information_Bthw)


def training_ratios(information_Bthw: Tensor, beta_B: Tensor) -> Tensor:
    """Per-frame ratios ``[B, t]`` of the published training: content moves tokens between frames.

    Their mean over frames is ``beta``, so the length of a clip does not depend on its content
    (facts D5). Each sample has its own ratios whatever the batch (facts B4).

    Args:
        information_Bthw: See `token_information`.
        beta_B: Share of tokens asked of each sample, in (0, 1].
    """
    frames_Bt = information_Bthw.mean(dim=(2, 3))
    excess_Bt = frames_Bt / frames_Bt.mean(dim=1, keepdim=True) - 1
    # The constant keeps a clip of equal frames from dividing by zero.
    highest_B1 = excess_Bt.amax(dim=1, keepdim=True) + 1e-5
    beta_B1 = beta_B.unsqueeze(1)
    # No frame may exceed 1.
    slope_B1 = torch.minimum(highest_B1, 1 / beta_B1 - 1) / highest_B1
    return beta_B1 * (1 + slope_B1 * excess_Bt)


def training_mask(information_Bthw: Tensor, ratio_Bt: Tensor) -> Tensor:
    """The published training's mask, same shape, bool: strictly above an order statistic.

    Per-frame ratios are averaged first, and one threshold serves the clip.
    """
    flat_BN = information_Bthw.flatten(1)
    last = flat_BN.shape[1] - 1
    index_B = ((1 - ratio_Bt.mean(dim=1)) * last).floor().long().clamp(0, last)
    threshold_B1 = flat_BN.sort(dim=1).values.gather(1, index_B.unsqueeze(1))
    return (flat_BN > threshold_B1).view_as(information_Bthw)
