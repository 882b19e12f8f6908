"""What a pass of the network costs on a GPU: the fast path beside the plain one, in one run.

    python benchmarks/network_gpu.py [--clips ../shared/data/clips256/val] [--json FILE]
    python benchmarks/network_gpu.py --profile

Three cases: the published 123 M network (random weights) on 33x256x256 clips, the same on the
81x240x432 clips of its demo, and the default checkpoint. A pass is what pass one of the pipeline
does: encode, compress, quantise, decompress, decode, information of each token. "plain" is the same
network as modules of the library, run eagerly in bfloat16, the precision of the reference; "fast"
is `infotok_core.fast` in float16. TFLOP are counted on the plain network, so both have the same.
The card's own rate is that of an 8192 x 8192 x 8192 product in the same run.

With --profile instead: the kernels of a pass of the published network by their time, as torch's
profiler sees them. With --clips (needs av) also: the share of the default checkpoint's tokens that
differ from those of float32, and what that does to PSNR, on the middle of as many real clips as
--num-clips says.
"""

from __future__ import annotations

import argparse
import copy
import functools
import gc
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from infotok_core.checkpoint import load_checkpoint
from infotok_core.config import published
from infotok_core.fast import pixels
from infotok_core.fast.network import Recorded, accelerate, is_accelerated
from infotok_core.information import token_information
from infotok_core.network import Network, build_network
from infotok_core.tokenizer import Tokenizer, from_uint8

CUDA = torch.device("cuda")
# Of the published network, two passes of 119 ms (the reference's job), on an H200.
REFERENCE_CLIPS_PER_S = 4.2


def main() -> None:
    """Measure, print Markdown, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clips", type=Path, help="a folder of videos")
    parser.add_argument("--num-clips", type=int, default=8)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    if arguments.profile:
        print_kernels()
        return
    rate = matmul_rate()
    machine = {
        "gpu": torch.cuda.get_device_name(), "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"), "matmul_tflops": round(rate, 1),
    }  # fmt: skip
    print(", ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
    document: dict[str, Any] = {"machine": machine, "rows": [], "precision": []}
    for case in cases():
        for row in measure(*case, rate):
            print_row(row)
            keep(arguments.json, document, "rows", row)
    for row in precision_rows(windows_of(arguments.clips, arguments.num_clips)):
        keep(arguments.json, document, "precision", row)


def keep(path: Path | None, document: dict[str, Any], part: str, row: dict[str, Any]) -> None:
    """Write each row as it comes: a GPU may be gone before the last."""
    document[part].append(row)
    if path is not None:
        path.write_text(json.dumps(document, indent=1) + "\n")


def cases() -> Iterator[tuple[str, Network, tuple[int, int, int], int]]:
    """Name, network, window, windows a batch."""
    network = build_network(published(), seed=0).eval()
    yield "published, 33x256x256", network, (33, 256, 256), 8
    yield "published, 81x240x432", network, (81, 240, 432), 2
    yield "default, 33x256x256", load_checkpoint("default").network.eval(), (33, 256, 256), 16


@torch.inference_mode()
def print_kernels(passes: int = 2, most: int = 40) -> None:
    """A row per kernel of the published network's fast pass, most time first."""
    case, network, window, batch = next(cases())
    video = torch.zeros((batch, *window, 3), dtype=torch.uint8, device=CUDA).random_(0, 256)
    work = one_pass(accelerate(network, device=CUDA, dtype=torch.float16))
    for _ in range(2):
        work(video)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        for _ in range(passes):
            work(video)
        torch.cuda.synchronize()
    times: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for event in seen.events() or []:
        if event.device_type == torch.autograd.DeviceType.CUDA:
            times[event.name] += event.device_time_total / 1000 / passes / batch
            calls[event.name] += 1
    print(f"{case}: {times.total():.2f} ms of kernels a clip")
    for name, milliseconds_ in times.most_common(most):
        print(f"{milliseconds_:8.4f} ms  {calls[name] // passes:4d} calls  {name[:120]}")


def matmul_rate() -> float:
    """TFLOP/s of a large float16 product."""
    a, b = torch.randn(2, 8192, 8192, device=CUDA, dtype=torch.float16)
    return 2 * 8192**3 / milliseconds(lambda: a @ b) / 1e9


def milliseconds(work: Callable[[], object], repeats: int = 10) -> float:
    """Mean time of a call, after two that do not count."""
    for _ in range(2):
        work()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(repeats):
        work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / repeats


@torch.inference_mode()
def measure(
    case: str, network: Network, window: tuple[int, int, int], batch: int, rate: float
) -> Iterator[dict[str, Any]]:
    """Rows of the plain and of the fast network."""
    frames, height, width = window
    generator = torch.Generator(device=CUDA).manual_seed(0)
    shape = (batch, frames, height, width, 3)
    video = torch.randint(0, 256, shape, dtype=torch.uint8, device=CUDA, generator=generator)
    plain = copy.deepcopy(network).to(CUDA, torch.bfloat16)
    work = tera_flop(plain, video[:1])
    fast = accelerate(network, device=CUDA, dtype=torch.float16)
    for path, model in (("plain bfloat16", plain), ("fast float16", fast)):
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        is_fast = model is fast
        repeats = 10 if is_fast else 3
        stages = stage_times(model, video, repeats, recorded=is_fast)
        whole: Callable[..., Any] = one_pass(model)
        if is_fast:
            whole = Recorded(whole)
        total = milliseconds(functools.partial(whole, video), repeats) / batch
        row = {
            "case": case, "path": path, "batch": batch,
            **{name: round(value / batch, 2) for name, value in stages.items()},
            "pass_ms": round(total, 2), "clips_per_s": round(1000 / total, 2),
            "tflop": round(work, 2), "tflops": round(1000 * work / total, 1),
            "share_of_matmul": round(1000 * work / total / rate, 3),
            "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2),
        }  # fmt: skip
        without_decoder = stages["encode"] + stages["compress"]
        row["latent_clips_per_s"] = round(1000 * batch / without_decoder, 2)
        if case.startswith("published, 33"):
            row["times_reference"] = round(1000 / total / REFERENCE_CLIPS_PER_S, 2)
        yield row


def one_pass(network: Network) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Tokens and information of uint8 windows."""
    is_fast = is_accelerated(network)
    to_float = pixels.from_uint8 if is_fast else from_uint8
    information_of = pixels.token_information if is_fast else token_information

    def work(video_BTHWC: Tensor) -> tuple[Tensor, Tensor]:
        video = to_float(video_BTHWC)
        tokens = network.tokenize(video)
        shown = network.decode_codes(tokens.codes_BCTHW).float()
        config = network.config
        information = information_of(
            video, shown, temporal=config.temporal_compression, spatial=config.spatial_compression
        )
        return tokens.indices_BTHW, information

    return work


def stage_times(
    network: Network, video: Tensor, repeats: int, *, recorded: bool
) -> dict[str, float]:
    """Milliseconds a batch of each stage."""
    latent = network.encode(from_uint8(video))
    compressed = network.compress(latent)
    codes = network.quantize(compressed).codes_BCTHW
    decompressed = network.decompress(network.embed(codes))
    stages: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
        "encode": (lambda x: network.encode(from_uint8(x)), video),
        "compress": (lambda x: network.quantize(network.compress(x)).codes_BCTHW, latent),
        "decompress": (lambda x: network.decompress(network.embed(x)), codes),
        "decode": (network.decode, decompressed),
    }
    times: dict[str, float] = {}
    for name, (stage, given) in stages.items():
        call: Callable[[Tensor], Any] = (
            Recorded(lambda x, stage=stage: (stage(x),)) if recorded else stage
        )
        times[name] = milliseconds(functools.partial(call, given), repeats)
        torch.cuda.empty_cache()
    return times


def tera_flop(network: Network, video: Tensor) -> float:
    """Of one pass over one clip."""
    with FlopCounterMode(display=False) as counter:
        one_pass(network)(video)
    return counter.get_total_flops() / 1e12


def windows_of(folder: Path | None, number: int) -> Tensor | None:
    """The first 33 frames of some videos, 256x256 from the middle: uint8 ``[N, T, H, W, 3]``."""
    if folder is None:
        return None
    import av
    import numpy as np

    found: list[Tensor] = []
    paths = sorted(folder.rglob("*.mp4"))
    for path in paths[:: max(1, len(paths) // number)]:
        with av.open(str(path)) as container:
            decoded = zip(range(33), container.decode(video=0), strict=False)
            frames = np.stack([frame.to_ndarray(format="rgb24") for _, frame in decoded])
        top, left = ((side - 256) // 2 for side in frames.shape[1:3])
        if len(frames) == 33 and min(top, left) >= 0:
            found.append(torch.from_numpy(frames[:, top : top + 256, left : left + 256].copy()))
    return torch.stack(found[:number])


def precision_rows(video: Tensor | None) -> Iterator[dict[str, Any]]:
    """How far each path is from float32, with the default checkpoint on real clips."""
    if video is None:
        return
    wanted = tokenizer_of("float32").analyse(video.cuda())
    keep = torch.ones_like(wanted.codes_Bthw, dtype=torch.bool)
    for name in ("float32", "eager bfloat16", "eager float16", "bfloat16", "float16"):
        tokenizer = tokenizer_of(name)
        found = tokenizer.analyse(video.cuda())
        shown = torch.cat(
            [
                tokenizer.reconstruct(codes[None], mask[None]).cpu()
                for codes, mask in zip(found.codes_Bthw, keep, strict=True)
            ]
        )
        squared = (shown.float() - video.float()).square().mean((1, 2, 3, 4))
        differ = (found.codes_Bthw != wanted.codes_Bthw).float().mean()
        row = {
            "path": name, "windows": len(video), "tokens_differ": round(float(differ), 5),
            "psnr": round(float((10 * torch.log10(255**2 / squared)).mean()), 3),
            "information_differs": round(
                float((found.information_Bthw / wanted.information_Bthw - 1).abs().mean()), 6
            ),
        }  # fmt: skip
        print(row, flush=True)
        yield row


def tokenizer_of(name: str) -> Tokenizer:
    """The default checkpoint in a precision, by the fast path unless it is called eager."""
    checkpoint = load_checkpoint("default")
    if not name.startswith("eager"):
        return Tokenizer(checkpoint, device=CUDA, dtype=getattr(torch, name))
    plain = Tokenizer(checkpoint, device=CUDA)
    plain.network.to(getattr(torch, name.removeprefix("eager ")))
    return plain


def print_row(row: dict[str, Any]) -> None:
    """One line."""
    print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)


if __name__ == "__main__":
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    main()
