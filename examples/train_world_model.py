"""Train a small world model on token corpora of the same videos, and compare them.

    infotok run examples/clips tokens-50 --rate 0.5 --set window.frames=17 --set space.size=128
    infotok tokenise tokens-100 --work tokens-50/_work --rate 1.0
    python examples/train_world_model.py tokens-50 tokens-100 --out world-model

For each corpus: the unigram entropy of its tokens, the loss of training and of held-out videos, and
a continuation of a held-out window, sampled and decoded, beside what the corpus holds. In the end a
table: what a second of video costs in bits, and how fast training goes. Bits include where a token
lies; only the place of the first token of a window is taken for granted.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from continuation import BEGIN, draw
from pace import Pace
from torch import Tensor
from torch.utils.data import DataLoader
from world_model import Grid, WorldModel, digit_radix

from pipelines.dataset import Packing, Specials, TokenDataset, collate


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came out for one corpus. Held-out numbers are over whole windows."""

    corpus: str
    rate: float
    tokens_per_s: float
    unigram_bits: float
    train_bits: float
    held_bits: float
    held_place_bits: float
    held_bits_per_s: float
    parameters: int
    steps: int
    steps_per_s: float
    items_per_s: float
    waited_share: float
    trained_s: float


def held_videos(dataset: TokenDataset, share: float) -> frozenset[str]:
    """The same videos of every corpus: the first by their ids, which are hashes; at least one."""
    every = sorted({sample["video_id"] for sample in dataset})
    return frozenset(every[: max(1, round(share * len(every)))])


def unigram_bits(dataset: TokenDataset) -> float:
    """Entropy of the ids of the corpus itself: no unigram model of it can do better."""
    counts = np.zeros(dataset.info.tokenizer.num_codes, np.int64)
    for sample in dataset:
        counts += np.bincount(sample["tokens"].numpy(), minlength=len(counts))
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum())


def batches(options: argparse.Namespace, corpus: str) -> Iterator[dict[str, Any]]:
    """Packed contexts of the videos that are not held out, epoch after epoch."""
    dataset = TokenDataset(
        corpus,
        Packing(context=options.context, specials=Specials(bos=BEGIN)),
        seed=options.seed,
        batch_size=options.batch,
        videos=lambda video: video not in options.held_videos,
    )
    # Batches of one size: a kernel is compiled once.
    whole = dataset.num_items() >= options.batch
    loader = DataLoader(
        dataset,
        batch_size=options.batch,
        collate_fn=collate,
        drop_last=whole,
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
        pin_memory=on_gpu(options),
    )
    for epoch in itertools.count():
        dataset.set_epoch(epoch)
        yield from loader


def on_gpu(options: argparse.Namespace) -> bool:
    """Whether training runs on a GPU."""
    return torch.device(options.device).type == "cuda"


def precision(options: argparse.Namespace) -> torch.autocast:
    """In which products are computed."""
    device = torch.device(options.device).type
    return torch.autocast(device, torch.bfloat16, enabled=options.precision == "bf16")


def loss_bits(
    options: argparse.Namespace, model: WorldModel, batch: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """(bits of ids and of places, tokens that were predicted) of a batch."""
    tokens, where, documents = (
        batch[name].to(options.device, non_blocking=True)
        for name in ("tokens", "positions", "document_ids")
    )
    with precision(options):
        bits = model.loss_bits(tokens, where, documents)
    follows = (documents[:, 1:] == documents[:, :-1]) & (where[:, 1:, 1] >= 0)
    return bits.sum((0, 1)), follows.sum()


def train(options: argparse.Namespace, corpus: str, model: WorldModel) -> dict[str, float]:
    """Loss over the last tenth in bits per token, steps per second, share spent in waiting."""
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=options.lr, betas=(0.9, 0.95), fused=on_gpu(options)
    )
    warm_up = max(1, options.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min(
            (step + 1) / warm_up, 0.5 + 0.5 * math.cos(math.pi * step / options.steps)
        ),
    )
    pace = Pace(options.device, left_out=min(10, options.steps // 10))
    losses: list[Tensor] = []
    every, recent = max(1, options.steps // 10), math.nan
    some = itertools.islice(batches(options, corpus), options.steps)
    for step, batch in enumerate(pace.each(some), 1):
        bits, count = loss_bits(options, model, batch)
        loss = bits.sum() / count.clamp(min=1)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.detach())
        if step % every == 0:
            recent = float(torch.stack(losses[-every:]).mean())
            speed = f"{pace.so_far()[0]:.2f} steps/s"
            print(f"  step {step}: {recent:.2f} bits per token, {speed}", flush=True)
    steps_per_s, waited = pace.so_far()
    return {"train_bits": recent, "steps_per_s": steps_per_s, "waited_share": waited}


@torch.no_grad()
def held_loss(options: argparse.Namespace, corpus: str, model: WorldModel) -> tuple[float, ...]:
    """Over the held-out windows: (bits per token for its id, for its place, bits per second)."""
    packing = Packing(
        context=options.context, documents="window", split=False, specials=Specials(bos=BEGIN)
    )
    dataset = TokenDataset(
        corpus, packing, seed=None, videos=lambda video: video in options.held_videos
    )
    model.eval()
    bits, count, seconds = torch.zeros(2), 0, 0.0
    for batch in DataLoader(dataset, batch_size=options.batch, collate_fn=collate):
        more, tokens = loss_bits(options, model, batch)
        bits, count = bits + more.cpu(), count + int(tokens)
        seconds += sum(w["end_time_s"] - w["start_time_s"] for ws in batch["windows"] for w in ws)
    ids, places = (bits / count).tolist()
    return ids, places, float(bits.sum()) / seconds


def new_model(options: argparse.Namespace, grid: Grid) -> WorldModel:
    """An untrained model."""
    torch.manual_seed(options.seed)
    return WorldModel(
        grid,
        digit_radix(options.num_codes, grid),
        layers=options.layers,
        heads=options.heads,
        flex=options.attention == "flex",
    ).to(options.device)


def rehearsed_steps(options: argparse.Namespace, corpus: str, grid: Grid) -> int:
    """Steps that take ``options.seconds``, by the pace of some with a model that is thrown away."""
    rehearsal = argparse.Namespace(**{**vars(options), "steps": 40})
    pace = train(rehearsal, corpus, new_model(options, grid))["steps_per_s"]
    steps = max(1, round(pace * options.seconds))
    print(f"  {steps} steps for each corpus", flush=True)
    return steps


def check_corpus(options: argparse.Namespace, corpus: str, every: TokenDataset) -> None:
    """End where numbers would be wrong: a window in two contexts, or other videos to compare."""
    sizes = {sample["clip_id"]: len(sample["tokens"]) for sample in every}
    longest = max(sizes.values())
    if options.context <= longest:
        sys.exit(
            f"{corpus} has windows of {longest} tokens: --context must be {longest + 1} or more"
        )
    if options.windows is None:
        options.windows = sizes.keys()
    elif options.windows != sizes.keys():
        sys.exit(f"{corpus} holds other videos than the first corpus")


def run(options: argparse.Namespace, corpus: str) -> Result:
    """Train on one corpus."""
    every = TokenDataset(corpus, seed=None)
    check_corpus(options, corpus, every)
    info = every.info
    options.num_codes = info.tokenizer.num_codes
    options.held_videos = held_videos(every, options.held)
    t, h, w = (max(sample["grid"][axis] for sample in every) for axis in range(3))
    seconds = sum(sample["end_time_s"] - sample["start_time_s"] for sample in every)
    entropy = unigram_bits(every)
    print(f"{corpus}: {info.totals.tokens} tokens, unigram entropy {entropy:.2f} bits", flush=True)
    grid = Grid(t=t, h=h, w=w)
    if options.seconds is not None:
        options.steps = rehearsed_steps(options, corpus, grid)
        options.seconds = None
    model = new_model(options, grid)
    trained = train(options, corpus, model)
    ids, places, per_s = held_loss(options, corpus, model)
    print(f"  held out: {ids:.2f} bits per token, {places:.2f} for its place", flush=True)
    if options.draw:
        with precision(options):
            path = draw(options, corpus, model)
        print(f"  continuation: {path}", flush=True)
    items = options.steps * options.batch * options.context
    return Result(
        corpus=corpus,
        rate=info.realised_rate,
        tokens_per_s=info.totals.tokens / seconds,
        unigram_bits=entropy,
        train_bits=trained["train_bits"],
        held_bits=ids,
        held_place_bits=places,
        held_bits_per_s=per_s,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        steps=options.steps,
        steps_per_s=trained["steps_per_s"],
        items_per_s=trained["steps_per_s"] * options.batch * options.context,
        waited_share=trained["waited_share"],
        trained_s=items * seconds / info.totals.tokens,
    )


def main() -> None:
    """Run all corpora and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("corpora", nargs="+", help="token corpora of the same videos")
    parser.add_argument("--out", type=Path, default=Path("world-model"))
    parser.add_argument("--steps", type=int, default=400, help="the same for all corpora")
    parser.add_argument("--seconds", type=float, help="instead: what the first trains in this time")
    parser.add_argument(
        "--context", type=int, default=1536, help="items; at least a window and one"
    )
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=2, help="of 32 channels each")
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--held", type=float, default=0.1, help="share of the videos")
    parser.add_argument("--draw", type=int, default=2, help="latent frames to draw; 0: none")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--checkpoint", help="of the corpora, if it is not where it was")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("float32", "bf16"), help="a GPU has bf16")
    parser.add_argument("--attention", choices=("sdpa", "flex"), help="a GPU has flex")
    parser.add_argument("--workers", type=int, help="of the loader; a GPU has 2")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.windows = None
    gpu = on_gpu(options)
    options.precision = options.precision or ("bf16" if gpu else "float32")
    options.attention = options.attention or ("flex" if gpu else "sdpa")
    if options.steps < 1:
        parser.error("--steps must be at least 1")
    if options.attention == "flex" and not gpu:
        parser.error("FlexAttention does not learn on a CPU: --attention sdpa")
    options.workers = (2 if gpu else 0) if options.workers is None else options.workers
    options.out.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    for corpus in options.corpora:
        results.append(asdict(run(options, corpus)))
        (options.out / "results.json").write_text(json.dumps(results, indent=1))
    for name in results[0]:
        print(f"{name:16} " + " ".join(f"{_text(result[name]):>14}" for result in results))


def _text(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else Path(str(value)).name


if __name__ == "__main__":
    main()
