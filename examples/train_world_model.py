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
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from world_model import Cache, Grid, WorldModel, digit_radix

from pipelines.dataset import Packing, Specials, TokenDataset, collate
from pipelines.video_writer import VideoWriter

BEGIN = 65535
"""Of the ids that no corpus uses."""


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
    steps_per_s: float
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


def batches(options: argparse.Namespace, corpus: str, steps: int) -> Iterator[dict[str, Any]]:
    """Packed contexts of the videos that are not held out, epoch after epoch."""
    dataset = TokenDataset(
        corpus,
        Packing(context=options.context, specials=Specials(bos=BEGIN)),
        seed=options.seed,
        batch_size=options.batch,
        videos=lambda video: video not in options.held_videos,
    )
    loader = DataLoader(dataset, batch_size=options.batch, collate_fn=collate)
    done, epoch = 0, 0
    while True:
        dataset.set_epoch(epoch)
        for batch in loader:
            if done == steps:
                return
            yield batch
            done += 1
        epoch += 1


def loss_bits(model: WorldModel, batch: dict[str, Any], device: str) -> tuple[Tensor, Tensor]:
    """(bits of ids and of places, tokens that were predicted) of a batch."""
    tokens, where, documents = (
        batch[name].to(device) for name in ("tokens", "positions", "document_ids")
    )
    bits = model.loss_bits(tokens, where, documents)
    follows = (documents[:, 1:] == documents[:, :-1]) & (where[:, 1:, 1] >= 0)
    return bits.sum((0, 1)), follows.sum()


def train(options: argparse.Namespace, corpus: str, model: WorldModel) -> tuple[float, float]:
    """(loss over the last tenth in bits per token, steps per second, or CPU-second)."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=options.lr, betas=(0.9, 0.95))
    warm_up = max(1, options.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min(
            (step + 1) / warm_up, 0.5 + 0.5 * math.cos(math.pi * step / options.steps)
        ),
    )
    # On a CPU its own time counts, which others on the machine do not disturb.
    clock = time.process_time if options.device == "cpu" else time.perf_counter
    losses: list[float] = []
    busy_s, every = 0.0, max(1, options.steps // 10)
    for step, batch in enumerate(batches(options, corpus, options.steps), 1):
        begun_s = clock()
        bits, count = loss_bits(model, batch, options.device)
        loss = bits.sum() / count.clamp(min=1)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        busy_s += clock() - begun_s
        if step % every == 0:
            recent = sum(losses[-every:]) / every
            print(
                f"  step {step}: {recent:.2f} bits per token, {step / busy_s:.2f} steps/s",
                flush=True,
            )
    return sum(losses[-every:]) / len(losses[-every:]), len(losses) / busy_s


@torch.no_grad()
def held_loss(options: argparse.Namespace, corpus: str, model: WorldModel) -> tuple[float, ...]:
    """Over the held-out windows: (bits per token for its id, for its place, bits per second)."""
    packing = Packing(
        context=options.context, documents="window", split=False, specials=Specials(bos=BEGIN)
    )
    dataset = TokenDataset(
        corpus, packing, seed=None, videos=lambda video: video in options.held_videos
    )
    bits, count, seconds = torch.zeros(2), 0, 0.0
    for batch in DataLoader(dataset, batch_size=options.batch, collate_fn=collate):
        more, tokens = loss_bits(model, batch, options.device)
        bits, count = bits + more.cpu(), count + int(tokens)
        seconds += sum(w["end_time_s"] - w["start_time_s"] for ws in batch["windows"] for w in ws)
    ids, places = (bits / count).tolist()
    return ids, places, float(bits.sum()) / seconds


@torch.no_grad()
def continue_window(
    model: WorldModel, sample: dict[str, Any], *, frames: int, options: argparse.Namespace
) -> dict[str, Any]:
    """The sample with everything behind its first ``frames`` latent frames drawn from the model."""
    grid = model.grid
    end = sample["grid"][0] * grid.h * grid.w
    given = int((sample["positions"][:, 0] < frames).sum())
    tokens = [BEGIN, *sample["tokens"][:given].tolist()]
    where = [(-1, -1, -1), *map(tuple, sample["positions"][:given].tolist())]
    # The place of the first drawn token is given, too: the model is asked only behind it.
    place = int(grid.place(sample["positions"][given : given + 1]))
    cache: Cache = []
    new = 0
    while place < end:
        asked = [*where[new + 1 :], grid.position(place)]
        ids, own, following = (
            torch.tensor([values], device=options.device)
            for values in (tokens[new:], where[new:], asked)
        )
        length = ids.shape[1]
        mask = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
        read = model.hidden(ids, own, following, mask=None if new else mask, cache=cache)
        token, way = model.sample_next(read[0, -1], temperature=options.temperature)
        new = len(tokens)
        tokens.append(min(token, options.num_codes - 1))
        where.append(grid.position(place))
        place += way
    return {**sample, "tokens": torch.tensor(tokens[1:]), "positions": torch.tensor(where[1:])}


def show(options: argparse.Namespace, corpus: str, model: WorldModel) -> Path:
    """Write a held-out window as the corpus holds it, and as it was continued, side by side."""
    dataset = TokenDataset(corpus, seed=None, videos=lambda video: video in options.held_videos)
    sample = next(s for s in dataset if s["grid"][0] == model.grid.t)
    drawn = continue_window(model, sample, frames=model.grid.t - options.draw, options=options)
    frames = [dataset.detokenise(s, checkpoint=options.checkpoint) for s in (sample, drawn)]
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{Path(corpus).name}-{sample['clip_id']}.mp4"
    both = np.concatenate(frames, axis=2)
    with VideoWriter(path, width=both.shape[2], height=both.shape[1], fps=sample["fps"]) as video:
        video.write(both)
    return path


def run(options: argparse.Namespace, corpus: str) -> Result:
    """Train on one corpus."""
    every = TokenDataset(corpus, seed=None)
    info = every.info
    options.num_codes = info.tokenizer.num_codes
    options.held_videos = held_videos(every, options.held)
    t, h, w = (max(sample["grid"][axis] for sample in every) for axis in range(3))
    seconds = sum(sample["end_time_s"] - sample["start_time_s"] for sample in every)
    entropy = unigram_bits(every)
    print(f"{corpus}: {info.totals.tokens} tokens, unigram entropy {entropy:.2f} bits", flush=True)
    torch.manual_seed(options.seed)
    grid = Grid(t=t, h=h, w=w)
    model = WorldModel(
        grid, digit_radix(options.num_codes, grid), layers=options.layers, heads=options.heads
    ).to(options.device)
    train_bits, steps_per_s = train(options, corpus, model)
    ids, places, per_s = held_loss(options, corpus, model)
    print(f"  held out: {ids:.2f} bits per token, {places:.2f} for its place", flush=True)
    print(f"  continuation: {show(options, corpus, model)}", flush=True)
    items = options.steps * options.batch * options.context
    return Result(
        corpus=corpus,
        rate=info.realised_rate,
        tokens_per_s=info.totals.tokens / seconds,
        unigram_bits=entropy,
        train_bits=train_bits,
        held_bits=ids,
        held_place_bits=places,
        held_bits_per_s=per_s,
        steps_per_s=steps_per_s,
        trained_s=items * seconds / info.totals.tokens,
    )


def main() -> None:
    """Run all corpora and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("corpora", nargs="+", help="token corpora of the same videos")
    parser.add_argument("--out", type=Path, default=Path("world-model"))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument(
        "--context", type=int, default=1536, help="items; at least a window and one"
    )
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=2, help="of 32 channels each")
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--held", type=float, default=0.1, help="share of the videos")
    parser.add_argument("--draw", type=int, default=2, help="latent frames to draw")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--checkpoint", help="of the corpora, if it is not where it was")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    results = [asdict(run(options, corpus)) for corpus in options.corpora]
    for name in results[0]:
        print(f"{name:16} " + " ".join(f"{_text(result[name]):>14}" for result in results))
    (options.out / "results.json").write_text(json.dumps(results, indent=1))


def _text(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else Path(str(value)).name


if __name__ == "__main__":
    main()
