"""What pass one's network costs on this machine, stage by stage, against the published network.

    python benchmarks/network.py [--published] [--threads 2]

CPU-seconds (both threads) for one 33x256x256 window in float32, best of three.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable

import torch

from infotok_core.checkpoint import Checkpoint, load_checkpoint
from infotok_core.config import published
from infotok_core.network import Network, build_network
from infotok_core.tokenizer import Tokenizer


def cpu_seconds(work: Callable[[], torch.Tensor], repeats: int) -> tuple[float, torch.Tensor]:
    """Best CPU time of ``repeats`` calls, and the last result."""
    best, result = float("inf"), torch.empty(0)
    for _ in range(repeats):
        started = time.process_time()
        result = work()
        best = min(best, time.process_time() - started)
    return best, result


@torch.inference_mode()
def measure(name: str, network: Network, *, repeats: int) -> float:
    """Print one row; returns the sum."""
    # As the pipeline places it: channels-last weights.
    checkpoint = Checkpoint(network=network.eval(), fingerprint="", ema_loss=None)
    network = Tokenizer(checkpoint).network
    video = torch.rand(1, 3, 33, 256, 256) * 2 - 1
    encode, latent = cpu_seconds(lambda: network.encode(video), repeats)
    compress, latent = cpu_seconds(lambda: network.compress(latent), repeats)
    codes = network.quantize(latent).codes_BCTHW
    decompress, latent = cpu_seconds(lambda: network.decompress(network.embed(codes)), repeats)
    decode, _ = cpu_seconds(lambda: network.decode(latent), repeats)
    stages = (encode, compress, decompress, decode)
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    print(
        f"| {name} | {millions:.1f} M | "
        + " | ".join(f"{seconds:.2f}" for seconds in stages)
        + f" | {sum(stages):.2f} |"
    )
    return sum(stages)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--published", action="store_true", help="also the 123 M network (minutes)")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, "
          f"{arguments.threads} threads, {time.strftime('%Y-%m-%d')}")  # fmt: skip
    print("| network | parameters | encode | compress | decompress | decode | CPU-seconds |")
    print("|---|---|---|---|---|---|---|")
    ours = measure("default", load_checkpoint("default").network, repeats=3)
    if arguments.published:
        theirs = measure("published, random weights", build_network(published(), seed=0), repeats=1)
        print(f"\nthe published network costs {theirs / ours:.0f} times the default one")


if __name__ == "__main__":
    main()
