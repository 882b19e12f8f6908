"""Which operation of a pass gives a window other numbers at another place of its batch.

    python benchmarks/batch_places.py [--checkpoint published] [--batch 8] [--window 33 256 256]

A pass is that of pass one: encode, compress, quantise, decompress, decode, information. Each
product, convolution, reduction and kernel of our own in it is called once more with the windows of
its batch moved on by one place, and has to give the same bits, moved on by one. So each is judged
alone, whatever the ones before it did. Then the whole pass, the same way: how many tokens change.

On a GPU the network is `infotok_core.fast` in float16, elsewhere the plain one in float32.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from network_gpu import one_pass
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

from infotok_core.checkpoint import load_checkpoint
from infotok_core.config import published
from infotok_core.fast import ops
from infotok_core.fast.network import accelerate
from infotok_core.network import Network, build_network

PROBED = {
    F.conv2d, F.conv3d, F.linear, F.layer_norm, F.group_norm, F.scaled_dot_product_attention,
    torch.matmul, torch.bmm, torch.einsum, torch.Tensor.matmul, torch.Tensor.mean, torch.Tensor.sum,
}  # fmt: skip
OURS = (
    "add_norm", "attend", "attend_in_time", "causal_conv", "double", "gate", "norm", "norm_silu",
    "softmax",
)  # fmt: skip


class Probe(TorchFunctionMode):
    """Calls every operation it knows twice and counts those that tell places apart."""

    def __init__(self, network: Network, batch: int) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.moved: dict[str, list[str]] = {}
        """For each operation, the shapes of those of its calls that tell places apart."""
        self._batch = batch
        tensors = [*network.parameters(), *network.buffers()]
        self._weights = {tensor.data_ptr() for tensor in tensors}

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        """What ``func`` returns."""
        if func not in PROBED:
            return func(*args, **(kwargs or {}))
        return self.probe(func, resolve_name(func) or str(func), args, kwargs or {})

    def probe(
        self,
        func: Callable[..., object],
        name: str,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> object:
        """What ``func`` returns; called once more if there are windows among its arguments."""
        found = func(*args, **kwargs)
        if any(self._has_windows(part) for part in args if isinstance(part, Tensor)):
            again = func(*map(self._on, args), **{k: self._on(v) for k, v in kwargs.items()})
            pairs = list(zip(_tensors(found), _tensors(again), strict=True))
            same = all(torch.equal(self._moved_on(one), other) for one, other in pairs)
            self.calls[name] += 1
            if not same:
                shapes = [list(part.shape) for part in args if isinstance(part, Tensor)]
                self.moved.setdefault(name, []).append(" by ".join(map(str, shapes)))
        return found

    def _has_windows(self, tensor: Tensor) -> bool:
        return (
            tensor.data_ptr() not in self._weights and tensor.dim() > 1 and self._dim(tensor) >= 0
        )

    def _dim(self, tensor: Tensor) -> int:
        """The first dimension that windows can lie in: of their number, or of all their frames."""
        sizes = enumerate(tensor.shape[:2])
        return next((dim for dim, size in sizes if size % self._batch == 0), -1)

    def _on(self, value: object) -> object:
        """With its windows moved on by one place, if it has windows."""
        return self._moved_on(value) if isinstance(value, Tensor) else value

    def _moved_on(self, tensor: Tensor) -> Tensor:
        if not self._has_windows(tensor):
            return tensor
        dim = self._dim(tensor)
        moved = tensor.roll(tensor.shape[dim] // self._batch, dim)
        # In the layout that it had, which may decide about the kernel.
        return torch.empty_like(tensor).copy_(moved)


def _tensors(found: object) -> Iterator[Tensor]:
    parts = found if isinstance(found, tuple) else (found,)
    return (part for part in parts if isinstance(part, Tensor))


@contextmanager
def kernels_probed(probe: Probe) -> Generator[None]:
    """Our kernels are plain functions, which a mode does not see."""
    plain = {name: getattr(ops, name) for name in OURS}
    try:
        for name, function in plain.items():
            setattr(ops, name, _probed(probe, name, function))
        yield
    finally:
        for name, function in plain.items():
            setattr(ops, name, function)


def _probed(probe: Probe, name: str, function: Callable[..., object]) -> Callable[..., object]:
    if name == "attend":  # the rest is of all windows, turns of as many positions as there are
        return lambda qkv, *rest, **kwargs: probe.probe(
            lambda moved: function(moved, *rest, **kwargs), f"our {name}", (qkv,), {}
        )
    return lambda *args, **kwargs: probe.probe(function, f"our {name}", args, kwargs)


def main() -> None:
    """Print a row per operation, and the tokens of the whole pass."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkpoint", default="published", help="or a path, or `default`")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--window", type=int, nargs=3, default=(33, 256, 256))
    arguments = parser.parse_args()
    name = arguments.checkpoint
    network = build_network(published(), seed=0) if name == "published" else None
    network = (network or load_checkpoint(name).network).eval()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        network = accelerate(network, device=device, dtype=torch.float16)
    generator = torch.Generator().manual_seed(1)
    shape = (arguments.batch, *arguments.window, 3)
    video = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(device)
    with torch.inference_mode():
        probe = Probe(network, arguments.batch)
        with kernels_probed(probe), probe:
            tokens, information = one_pass(network)(video)
        again, information_again = one_pass(network)(video.roll(1, 0))
    print("| operation | calls | that tell places apart |\n|---|---|---|")
    for operation, calls in sorted(probe.calls.items()):
        told = probe.moved.get(operation, [])
        print(f"| {operation} | {calls} | {len(told)}{': ' * bool(told)}{'; '.join(told)} |")
    changed = int((tokens.roll(1, 0) != again).sum())
    same = torch.equal(information.roll(1, 0), information_again)
    print(f"{changed} of {tokens.numel()} tokens change; information is the same: {same}")


if __name__ == "__main__":
    main()
