"""A network of ours as programs that run without this package: TorchScript or torch.export.

Both directions include the transformers, which the published exporter leaves out (facts B7).

Shapes: B windows, C code channels, T frames, H rows, W columns; lower-case t, h, w the latent grid.
"""

from __future__ import annotations

import copy
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from infotok_core.code_space import CodeSpaceNetwork
from infotok_core.code_space_files import holds_compressor
from infotok_core.config import TokenizerConfig
from infotok_core.errors import CheckpointError
from infotok_core.network import Network
from infotok_core.program_settings import SETTINGS_FILE, ProgramSettings, settings_text, zero_index
from infotok_core.tokenizer import Tokenizer
from infotok_core.weight_files import last_line

__all__ = ["ExportFormat", "ExportReport", "export_programs"]

ExportFormat = Literal["jit", "pt2"]
"""``jit``: TorchScript, any batch, frames and sides; again a ``--checkpoint``. ``pt2``:
torch.export, any batch of one window shape."""

_ENCODER_PARTS = ("encoder", "quant_conv", "vit_encoder", "information_head")
_DECODER_PARTS = ("decoder", "post_quant_conv", "vit_decoder", "information_head", "dropped_embed")

_MOST_WINDOWS = 256
"""In a batch of a ``pt2`` program."""

# Kernels may differ in the last bits, and random weights give large values.
_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What the stored programs gave for a window that they were not made with."""

    encoder: Path
    decoder: Path
    compared_tokens: int
    """All equal: an export that gives another token is an error."""
    max_error: float
    """Largest difference of a reconstructed value, on [-1, 1], kept and dropped tokens mixed."""


class _Encode(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # Any: also a traced network, which has the methods of its trace alone.
        self.network: Any = network

    def forward(self, video: Tensor) -> tuple[Tensor, Tensor]:
        codes, indices = self.network.tokenize(video)
        return indices, codes


class _Decode(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # Any: also a traced network, which has the methods of its trace alone.
        self.network: Any = network

    def forward(self, indices: Tensor, keep: Tensor | None = None) -> Tensor:
        codes = self.network.dequantize(indices)
        if keep is None:
            keep = torch.ones_like(indices, dtype=torch.bool)
        kept = keep.unsqueeze(1).to(codes.dtype)
        return self.network.decode_codes(codes * kept, kept)


def export_programs(
    tokenizer: Tokenizer,
    directory: Path,
    *,
    kind: ExportFormat = "jit",
    window: tuple[int, int, int] = (33, 256, 256),
) -> ExportReport:
    """Write ``encoder`` and ``decoder`` programs, run them, and compare with the network.

    The encoder gives (indices int32 [B, t, h, w], codes [B, C, t, h, w]) of a float32 video
    [B, 3, T, H, W] in [-1, 1]; the decoder takes indices and a bool mask [B, t, h, w] (optional in
    ``jit``), False where the zero code stands for a dropped position.

    Args:
        tokenizer: On the CPU, in float32.
        directory: Created if absent; files of the same names are overwritten. ``jit`` brings a
            ``tokenizer.json``, with which the directory is a checkpoint.
        kind: See `ExportFormat`.
        window: Frames, rows and columns of ``pt2`` programs, which take this shape alone.

    Raises:
        CheckpointError: If the directory holds weights, or the programs differ from the network.
        ValueError: If the network does not take such a window, or is not on the CPU, is
            budget-aware, or has a base of programs and is to become ``pt2``.
        OSError: If the directory cannot be written.
    """
    if tokenizer.device.type != "cpu":
        raise ValueError("export takes a tokenizer on the CPU")
    if tokenizer.network.is_budget_aware:
        raise ValueError("the tokens of a budget-aware compressor depend on the mask: no program")
    if kind == "pt2" and isinstance(tokenizer.network, CodeSpaceNetwork):
        raise ValueError("a base of TorchScript programs is exported as jit alone")
    if (directory / "model.safetensors").exists() or holds_compressor(directory):
        raise CheckpointError(str(directory), "holds a checkpoint: export into another directory")
    directory.mkdir(parents=True, exist_ok=True)
    encoder, decoder = (directory / f"{name}.{kind}" for name in ("encoder", "decoder"))
    with warnings.catch_warnings(), torch.no_grad():
        # TorchScript is deprecated and still the layout; a trace warns of every check it skips.
        warnings.simplefilter("ignore")
        if kind == "pt2":
            _write_pt2(tokenizer, encoder, decoder, window)
            return _compare(tokenizer, encoder, decoder, window)
        _write_jit(tokenizer.network, encoder, decoder)
        text = settings_text(_settings(tokenizer))
        (directory / SETTINGS_FILE).write_text(text, encoding="utf-8")
        other = tokenizer.shape.window or _window(tokenizer.config, 3, 2, 3)
        return _compare(tokenizer, encoder, decoder, other)


def _window(config: TokenizerConfig, t: int, h: int, w: int) -> tuple[int, int, int]:
    spatial = config.spatial_compression
    return 1 + t * config.temporal_compression, h * spatial, w * spatial


def _settings(tokenizer: Tokenizer) -> ProgramSettings:
    config, shape = tokenizer.config, tokenizer.shape
    return ProgramSettings(
        temporal_compression=shape.temporal_compression,
        spatial_compression=shape.spatial_compression,
        levels=config.levels,
        codebook_size=shape.codebook_size,
        fill_index=zero_index(config.levels),
        # A trace has the casts of the precision that it was made in.
        precision="float32",
        max_grid=shape.max_grid,
        window=shape.window,
    )


class _Recode(nn.Module):
    """The base's encoder, then tokens of our compressor."""

    def __init__(self, base: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.base, self.network = base, cast(Any, network)

    def forward(self, video: Tensor) -> tuple[Tensor, Tensor]:
        codes, indices = self.network.recode(self.base(video))
        return indices, codes


class _RecodeFirst(_Recode):
    """The same, for an encoder that gives more than its indices."""

    def forward(self, video: Tensor) -> tuple[Tensor, Tensor]:
        codes, indices = self.network.recode(self.base(video)[0])
        return indices, codes


class _Restore(nn.Module):
    """What the base would have said, from the kept tokens, then the base's decoder."""

    def __init__(self, base: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.base, self.network = base, cast(Any, network)

    def forward(self, indices: Tensor, keep: Tensor | None = None) -> Tensor:
        if keep is None:
            keep = torch.ones_like(indices, dtype=torch.bool)
        return self.base(self.network.restore(indices, keep))


def _write_code_space(network: CodeSpaceNetwork, encoder: Path, decoder: Path) -> None:
    base = network.base
    grid = base.settings.shape.grid(*(base.settings.window or _window(network.config, 2, 4, 6)))
    indices = torch.zeros(1, *grid, dtype=base.index_dtype)
    keep = torch.ones(1, *grid, dtype=torch.bool)
    inputs = {"recode": (indices,), "restore": (indices, keep)}
    traced = torch.jit.trace_module(network, inputs, check_trace=False)
    recode = _RecodeFirst if base.gives_more else _Recode
    try:
        programs = [
            torch.jit.script(recode(base.encoder_program, traced)),
            torch.jit.script(_Restore(base.decoder_program, traced)),
        ]
    except RuntimeError as error:
        raise ValueError(
            f"the programs of {base.directory} cannot become part of others: {last_line(error)}"
        ) from error
    for path, program in zip((encoder, decoder), programs, strict=True):
        _save(program, path)


def _write_jit(network: Network, encoder: Path, decoder: Path) -> None:
    if isinstance(network, CodeSpaceNetwork):
        _write_code_space(network, encoder, decoder)
        return
    video = torch.zeros(1, 3, *_window(network.config, 2, 4, 6))
    tokens = network.tokenize(video)
    inputs = {"tokenize": (video,)}
    half = _without(network, _DECODER_PARTS)
    traced = torch.jit.trace_module(half, inputs, check_trace=False)
    _save(torch.jit.script(_Encode(traced)), encoder)
    codes = tokens.codes_BCTHW
    inputs = {
        "dequantize": (tokens.indices_BTHW,),
        "decode_codes": (codes, torch.ones_like(codes[:, :1])),
    }
    half = _without(network, _ENCODER_PARTS)
    traced = torch.jit.trace_module(half, inputs, check_trace=False)
    _save(torch.jit.script(_Decode(traced)), decoder)


def _save(program: torch.jit.ScriptModule, path: Path) -> None:
    # Through memory: torch's own writer ends the process if the disk is full.
    file = io.BytesIO()
    torch.jit.save(program, file)
    path.write_bytes(file.getvalue())


def _write_pt2(
    tokenizer: Tokenizer, encoder: Path, decoder: Path, window: tuple[int, int, int]
) -> None:
    network = tokenizer.network
    grid = tokenizer.latent_shape(*window)
    # Sides could be left open, too, but the conditions on them are slow to derive, and loading such
    # a program derives them again.
    batch = {0: torch.export.Dim("batch", min=1, max=_MOST_WINDOWS)}
    # Two windows: a size of one would be frozen as a broadcast.
    video = torch.zeros(2, 3, *window)
    indices = torch.zeros(2, *grid, dtype=torch.int32)
    keep = torch.ones(2, *grid, dtype=torch.bool)
    for path, program, inputs in (
        (encoder, _Encode(_without(network, _DECODER_PARTS)), (video,)),
        (decoder, _Decode(_without(network, _ENCODER_PARTS)), (indices, keep)),
    ):
        shapes = (batch,) * len(inputs)
        stored = torch.export.export(program, inputs, dynamic_shapes=shapes, strict=False)
        file = io.BytesIO()
        torch.export.save(stored, file)
        path.write_bytes(file.getvalue())


def _without(network: Network, parts: tuple[str, ...]) -> Network:
    """A copy that lacks these: a program stores all weights that it could reach."""
    half = copy.deepcopy(network)
    for part in parts:
        if hasattr(half, part):
            delattr(half, part)
    return half


def _compare(
    tokenizer: Tokenizer, encoder: Path, decoder: Path, window: tuple[int, int, int]
) -> ExportReport:
    generator = torch.Generator().manual_seed(0)
    video = torch.rand(1, 3, *window, generator=generator) * 2 - 1
    wanted = tokenizer.network.tokenize(video).indices_BTHW
    found, _ = _load(encoder)(video)
    keep = torch.rand(wanted.shape, generator=generator) < 0.5
    if different := int((found != wanted).sum()):
        cause = f"{different} of {wanted.numel()} tokens differ from the network's"
        raise CheckpointError(str(encoder), cause)
    shown, again = _Decode(tokenizer.network)(wanted, keep), _load(decoder)(wanted, keep)
    error = (shown - again).abs().max().item()
    if not torch.allclose(shown, again, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise CheckpointError(str(decoder), f"is {error:g} away from the network's reconstruction")
    return ExportReport(
        encoder=encoder, decoder=decoder, compared_tokens=wanted.numel(), max_error=error
    )


def _load(path: Path) -> Any:  # noqa: ANN401  a program of either kind
    if path.suffix == ".jit":
        return torch.jit.load(str(path))
    return cast(Any, torch.export.load(path)).module()
