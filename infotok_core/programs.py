"""Anybody's fixed-rate discrete tokenizer as two TorchScript programs, in the Cosmos layout.

A directory with ``encoder.jit``, ``decoder.jit`` and optionally ``tokenizer.json``:

    encoder(video [B, 3, T, H, W] in [-1, 1]) -> indices or (indices, codes, ...)
    decoder(indices) -> video, or decoder(indices, keep), with integer and bool [B, t, h, w]

That is enough for routing by information: the error of the full-rate reconstruction ranks the
tokens, and a dropped position is decoded as the index of the zero code.

Shapes: B windows, T frames, H rows, W columns, C = 3 colours; lower-case t, h, w the latent grid.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor

from infotok_core.errors import CheckpointError
from infotok_core.information import token_information
from infotok_core.program_settings import SETTINGS_FILE, ProgramSettings, read_settings
from infotok_core.shape import TokenShape
from infotok_core.tokenizer import Analysis, VideoCodec, from_uint8, to_uint8
from infotok_core.weight_files import DECODER_FILE, ENCODER_FILE, last_line, load_program

__all__ = ["ProgramTokenizer", "Programs", "read_programs"]

_KEEP = "keep"
"""A decoder whose second input has this name is given the mask."""

_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """A pair of programs on disk, not loaded."""

    directory: Path
    settings: ProgramSettings
    fingerprint: str
    """SHA-256 over the settings and the bytes of both files."""


def read_programs(directory: str | Path) -> Programs:
    """Read the settings and the identity of a directory; no program is loaded.

    Raises:
        CheckpointError: If a file is absent or the settings are wrong.
    """
    path = Path(directory)
    settings = read_settings(path)
    digest = hashlib.sha256(json.dumps(settings.to_document(), sort_keys=True).encode())
    for name in (ENCODER_FILE, DECODER_FILE):
        try:
            with (path / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise CheckpointError(str(path / name), f"cannot be read: {error.strerror}") from error
    return Programs(directory=path, settings=settings, fingerprint=digest.hexdigest())


class ProgramTokenizer(VideoCodec):
    """Two TorchScript programs on a device; tried on one tiny window before anything else.

    Args:
        programs: Which.
        device: Where they run.
        dtype: What they compute in; None: the precision of the settings, or float32. Programs
            whose settings name a precision take that one alone.

    Raises:
        CheckpointError: If a program cannot be loaded, does not run, or does not do what the
            settings say; names the file.
        ValueError: If device, programs and ``dtype`` do not fit.
    """

    def __init__(
        self,
        programs: Programs,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
    ) -> None:
        self.directory = programs.directory
        self.settings = programs.settings
        precision = _precision(programs.settings, dtype)
        super().__init__(programs.fingerprint, device=device, dtype=precision)
        self._shape = programs.settings.shape
        self._encoder_path = programs.directory / ENCODER_FILE
        self._decoder_path = programs.directory / DECODER_FILE
        self._settings_path = programs.directory / SETTINGS_FILE
        self._encoder = load_program(self._encoder_path, device=self.device).to(precision)
        self._decoder = load_program(self._decoder_path, device=self.device).to(precision)
        self._takes_keep = _KEEP in _second_input(self._decoder)
        self._index_dtype = torch.int32
        self._try()

    @classmethod
    def load(
        cls,
        directory: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Read and place a directory; raises as the class and `read_programs` do."""
        return cls(read_programs(directory), device=device, dtype=dtype)

    @property
    def config(self) -> TokenShape:
        """Compression and vocabulary."""
        return self._shape

    def _analyse(self, video_u8_BTHWC: Tensor) -> Analysis:
        video_BCTHW = from_uint8(video_u8_BTHWC)
        indices_Bthw = self._encode(video_BCTHW)
        information = token_information(
            video_BCTHW,
            self._decode(indices_Bthw, torch.ones_like(indices_Bthw, dtype=torch.bool)),
            temporal=self._shape.temporal_compression,
            spatial=self._shape.spatial_compression,
        )
        return Analysis(codes_Bthw=indices_Bthw.int(), information_Bthw=information)

    def _reconstruct(self, codes_Bthw: Tensor, keep_Bthw: Tensor) -> Tensor:
        return to_uint8(self._decode(codes_Bthw.to(self._index_dtype), keep_Bthw))

    def _encode(self, video_BCTHW: Tensor) -> Tensor:
        batch, _, *window = video_BCTHW.shape
        grid = self._shape.grid(*window)
        found = _first(_run(self._encoder, video_BCTHW.to(self.dtype)))
        if found is None or found.is_floating_point() or found.dtype == torch.bool:
            what = "nothing" if found is None else f"{found.dtype} {list(found.shape)}"
            raise CheckpointError(
                str(self._encoder_path),
                f"gives {what} first, not integer indices: is it a continuous tokenizer?",
            )
        if found.shape != (batch, *grid):
            raise CheckpointError(
                str(self._encoder_path),
                f"turns frames {window} into indices {list(found.shape)}, not {[batch, *grid]}: "
                f"state its compression and shapes in {self._settings_path}",
            )
        low, high = int(found.min()), int(found.max())
        if low < 0 or high >= self._shape.codebook_size:
            raise CheckpointError(
                str(self._encoder_path),
                f"gives indices {low}..{high}, outside 0..{self._shape.codebook_size - 1}: state "
                f"its levels or codebook_size in {self._settings_path}",
            )
        return found

    def _decode(self, indices_Bthw: Tensor, keep_Bthw: Tensor) -> Tensor:
        """Video in [-1, 1], float32."""
        filled_Bthw = indices_Bthw.where(keep_Bthw, self.settings.fill_index)
        inputs = (filled_Bthw, keep_Bthw) if self._takes_keep else (filled_Bthw,)
        found = _first(_run(self._decoder, *inputs))
        t, h, w = indices_Bthw.shape[1:]
        wanted = [
            len(indices_Bthw), 3, 1 + (t - 1) * self._shape.temporal_compression,
            h * self._shape.spatial_compression, w * self._shape.spatial_compression,
        ]  # fmt: skip
        if found is None or not found.is_floating_point() or list(found.shape) != wanted:
            what = "nothing" if found is None else f"{found.dtype} {list(found.shape)}"
            raise CheckpointError(
                str(self._decoder_path),
                f"turns indices {list(indices_Bthw.shape)} into {what}, not floats {wanted}",
            )
        return found.float()

    @torch.inference_mode()
    def _try(self) -> None:
        """One forward pass each way, of noise from a fixed seed, at the least cost that tells."""
        shape = self._shape
        # Sides differ, so that a swapped axis shows.
        frames, height, width = shape.window or (
            1 + shape.temporal_compression,
            4 * shape.spatial_compression,
            6 * shape.spatial_compression,
        )
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(1, 3, frames, height, width, generator=generator) * 2 - 1
        path = self._encoder_path
        try:
            indices = self._encode(noise.to(self.device))
            self._index_dtype = indices.dtype
            path = self._decoder_path
            self._decode(indices, torch.zeros_like(indices, dtype=torch.bool))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise CheckpointError(
                str(path),
                f"does not run on {frames} frames of {height}x{width} in {self.dtype} on "
                f"{self.device} ({last_line(error)}); if it takes another precision or one shape "
                f"alone, say so in {self._settings_path}",
            ) from error


def _precision(settings: ProgramSettings, asked: torch.dtype | None) -> torch.dtype:
    own = _PRECISIONS[settings.precision] if settings.precision else None
    if own and asked and own != asked:
        raise ValueError(
            f"the programs compute in {settings.precision} alone (tokenizer.json), not {asked}"
        )
    return own or asked or torch.float32


def _second_input(program: torch.jit.ScriptModule) -> list[str]:
    schema: Any = cast(Any, program.forward).schema
    # The first argument is the program itself.
    return [argument.name for argument in schema.arguments[2:3]]


def _run(program: torch.jit.ScriptModule, *inputs: Tensor) -> object:
    # Unoptimised: the executor would change kernels, and with them bits, after a few calls.
    with torch.jit.optimized_execution(False):  # pyright: ignore[reportPrivateImportUsage]
        return program(*inputs)


def _first(output: object) -> Tensor | None:
    if isinstance(output, tuple | list) and output:
        output = cast(list[object], output)[0]
    return output if isinstance(output, Tensor) else None
