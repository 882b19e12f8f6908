"""What other rules than N ~ ELBO would give: one threshold for all tokens, powers of the ELBO.

    python benchmarks/router_rules.py INPUT [--report docs/evaluation/full.json] [--keep FILE.npz]

The report of a full sweep has the squared error of every clip at sixteen rates; the information of
every token is measured here, once more, on the same windows of INPUT (15 CPU-seconds each on a slow
machine; ``--keep`` stores it for the next time). Errors between measured rates lie on straight
lines of their logarithm, as in router_exponent.py, and so does the optimum.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from router_exponent import clipped, errors, rates, solved

from infotok_core.opening import open_tokenizer
from jobs.config import load_config
from pipelines.evaluation.clips import ClipSource
from schemas.evaluation import EvaluationReport
from schemas.token_bins import TokenAccumulator
from schemas.token_rules import solve_token_rule

Array = NDArray[np.float64]


def main() -> None:
    """Print PSNR of the pooled error and mean PSNR of the clips for each rate and rule."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("input")
    parser.add_argument("--report", type=Path, default=Path("docs/evaluation/full.json"))
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    report = EvaluationReport.from_bytes(arguments.report.read_bytes())
    if arguments.keep is not None and arguments.keep.exists():
        found = dict(np.load(arguments.keep))
    else:
        found = measured(report, arguments.input)
        if arguments.keep is not None:
            np.savez_compressed(arguments.keep, **found)
    maps = [found[name(clip.source, clip.window_index)] for clip in report.clips]
    tokens = [information.astype(float) for information in maps]
    elbo = np.array([window.mean() for window in tokens])
    print("| rate | rule | pooled | mean of the clips |\n|---|---|---|---|")
    for rate in (0.75, 0.5, 0.25):
        rules = {
            "the same rate for all": np.full(len(elbo), rate),
            "ELBO: the paper": rates(elbo, rate),
            "ELBO ** 0.5": rates(elbo**0.5, rate),
            "tokens above t": above(tokens, rate),
            "tokens above t ELBO ** 0.5": above([w / w.mean() ** 0.5 for w in tokens], rate),
            "the same by routing.router = token_threshold": binned(maps, rate),
            "tokens above t ELBO": above([w / w.mean() for w in tokens], rate),
            "optimum of the pooled error": optimum(report, rate),
        }
        for rule, shares in rules.items():
            mse = errors(report, shares)
            pooled, mean = -10 * np.log10(mse.mean()), (-10 * np.log10(mse)).mean()
            print(f"| {rate} | {rule} | {pooled:.2f} | {mean:.2f} |")


def name(source: str, window_index: int) -> str:
    """Of a window."""
    return f"{source}|{window_index}"


def measured(report: EvaluationReport, url: str) -> dict[str, NDArray[np.float32]]:
    """Information of each token of the report's windows."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.float16 if device == "cuda" else torch.float32
    tokenizer = open_tokenizer(report.checkpoint, device=device, dtype=dtype, information="elbo")
    wanted = {name(clip.source, clip.window_index) for clip in report.clips}
    last: dict[str, int] = {}
    for clip in report.clips:
        last[clip.source] = max(clip.window_index, last.get(clip.source, 0))
    config = load_config(
        overrides={"window.frames": report.clips[0].frames, "space.size": report.clips[0].height}
    )
    found: dict[str, NDArray[np.float32]] = {}
    with ClipSource(url, config) as source:
        for uri, index in last.items():
            for window in source.windows(uri, stop=index + 1):
                if name(uri, window.span.window_index) in wanted:
                    frames = torch.as_tensor(np.array(window.frames_THWC))
                    analysis = tokenizer.analyse(frames.unsqueeze(0))
                    information = analysis.information_Bthw[0].cpu().numpy()
                    found[name(uri, window.span.window_index)] = information
    return found


def above(scores: list[Array], mean: float) -> Array:
    """Share of each window's scores above one threshold for all, of this mean."""

    def shares(threshold: float) -> Array:
        return clipped(np.array([(score > threshold).mean() for score in scores]))

    return solved(shares, max(float(score.max()) for score in scores), mean)


def binned(maps: list[NDArray[np.float32]], mean: float) -> Array:
    """Shares by the rule of the pipeline, solved on bins instead of single tokens."""
    counted = TokenAccumulator(1 / 16)
    rounded = [information.astype(np.float16) for information in maps]
    for information in rounded:
        counted.add(information)
    rule = solve_token_rule(counted.freeze(), rate=mean)
    return np.array([rule.asked(information)[1] for information in rounded])


def optimum(report: EvaluationReport, mean: float) -> Array:
    """Rates of this mean with the least pooled error, by a price for tokens."""
    grid = np.linspace(1 / 16, 1, 121)
    error = np.stack([errors(report, np.full(len(report.clips), share)) for share in grid], axis=1)
    return solved(
        lambda price: grid[(error + price * grid).argmin(axis=1)], float(error.max()) * 1000, mean
    )


if __name__ == "__main__":
    main()
