"""What N ~ ELBO ** exponent would give, from the curves of a full sweep; nothing is decoded.

    python benchmarks/router_exponent.py [docs/evaluation/full.json]

A full sweep (`infotok evaluate --sweep full --json`) has the squared error of every clip at sixteen
rates. Here rates by another exponent are met between them, on straight lines of the logarithm of
the error; `infotok evaluate --exponent` measures one with real decodes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schemas.evaluation import EvaluationReport

MIN_RATE = 1 / 16


def main() -> None:
    """Print PSNR of the pooled error and mean PSNR for rates and exponents."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("report", type=Path, nargs="?", default=Path("docs/evaluation/full.json"))
    report = EvaluationReport.from_bytes(parser.parse_args().report.read_bytes())
    elbo = np.array([clip.elbo for clip in report.clips])
    print("| rate | exponent | pooled | mean of the clips |\n|---|---|---|---|")
    for rate in (0.75, 0.5, 0.25):
        for exponent in (0.0, 0.25, 0.5, 0.75, 1.0, 1.5):
            mse = errors(report, rates(elbo**exponent, rate))
            pooled, mean = -10 * np.log10(mse.mean()), (-10 * np.log10(mse)).mean()
            print(f"| {rate} | {exponent} | {pooled:.2f} | {mean:.2f} |")


def rates(share: NDArray[np.float64], mean: float) -> NDArray[np.float64]:
    """``clip(share / price)`` of this mean."""
    return solved(lambda price: clipped(share / price), share.max() / MIN_RATE, mean)


def solved(
    shares: Callable[[float], NDArray[np.float64]], most: float, mean: float
) -> NDArray[np.float64]:
    """The shares of this mean, of a function that falls with a price from 0 to ``most``."""
    low, high = 0.0, most
    for _ in range(100):
        price = (low + high) / 2
        low, high = (price, high) if shares(price).mean() > mean else (low, price)
    return shares(high)


def clipped(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rates a window can have."""
    return np.clip(share, MIN_RATE, 1)


def errors(report: EvaluationReport, wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean squared error of each clip on pixels in [0, 1], between its measured rates."""
    found: list[float] = []
    for clip, rate in zip(report.clips, wanted, strict=True):
        points = {
            point.num_tokens / clip.cells: point.squared_error
            for point in clip.points
            if point.selection in ("all", "information")
        }
        known = sorted(points)
        logarithm = np.interp(rate, known, np.log([points[x] for x in known]))
        found.append(float(np.exp(logarithm)) / (clip.frames * clip.height * clip.width * 3))
    return np.array(found) / 255**2


if __name__ == "__main__":
    main()
