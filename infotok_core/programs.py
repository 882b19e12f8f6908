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
from torch import Tensor, nn

from infotok_core.errors import CheckpointError
from infotok_core.information import token_information
from infotok_core.program_settings import SETTINGS_FILE, ProgramSettings, read_settings
from infotok_core.shape import TokenShape
from infotok_core.tokenizer import Analysis, VideoCodec, from_uint8, to_uint8
from infotok_core.weight_files import DECODER_FILE, ENCODER_FILE, last_line, load_program

__all__ = ["ProgramTokenizer", "Programs", "read_programs"]

_KEEP = "keep"
"""A decoder whose second input has this name is given the mask."""

_DECODER_PARTS = ("post_quant_conv", "decoder")
"""Of the official decoder, behind the step from indices to codes."""

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
        self._programs = programs
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
        for program in (self._encoder, self._decoder):
            for parameter in program.parameters():
                parameter.requires_grad_(False)
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

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself: programs do not change, so that copies of what holds them share one."""
        return self

    def on(self, device: str | torch.device) -> Self:
        """The same programs on another device; itself if they are there."""
        if torch.device(device) == self.device:
            return self
        return type(self)(self._programs, device=device, dtype=self.dtype)

    @property
    def index_dtype(self) -> torch.dtype:
        """The integers that the programs speak."""
        return self._index_dtype

    @property
    def gives_more(self) -> bool:
        """Whether the encoder gives more than its indices."""
        schema: Any = cast(Any, self._encoder.forward).schema
        return schema.returns[0].type.kind() != "TensorType"

    @property
    def encoder_program(self) -> torch.jit.ScriptModule:
        """As it was loaded."""
        return self._encoder

    @property
    def decoder_program(self) -> torch.jit.ScriptModule:
        """As it was loaded."""
        return self._decoder

    @property
    def has_gradient(self) -> bool:
        """Whether the decoder has the parts of the official one, which take codes.

        An index has no gradient; a program that is one closed graph cannot be entered behind it.
        """
        return all(isinstance(getattr(self._decoder, p, None), nn.Module) for p in _DECODER_PARTS)

    def decode_codes(self, codes_BCthw: Tensor) -> Tensor:
        """Video of FSQ codes, float32, with a gradient; for a decoder that `has_gradient`."""
        latent: Any = codes_BCthw.to(self.dtype)
        for name in _DECODER_PARTS:
            latent = _run(getattr(self._decoder, name), latent)
        return cast(Tensor, latent).float()

    @property
    def config(self) -> TokenShape:
        """Compression and vocabulary."""
        return self._shape

    def _analyse(self, video_u8_BTHWC: Tensor) -> Analysis:
        video_BCTHW = from_uint8(video_u8_BTHWC)
        indices_Bthw = self.encode(video_BCTHW)
        information = token_information(
            video_BCTHW,
            self.decode(indices_Bthw, torch.ones_like(indices_Bthw, dtype=torch.bool)),
            temporal=self._shape.temporal_compression,
            spatial=self._shape.spatial_compression,
        )
        return Analysis(codes_Bthw=indices_Bthw.int(), information_Bthw=information)

    def _reconstruct(self, codes_Bthw: Tensor, keep_Bthw: Tensor) -> Tensor:
        return to_uint8(self.decode(codes_Bthw, keep_Bthw))

    def encode(self, video_BCTHW: Tensor) -> Tensor:
        """Indices ``[B, t, h, w]`` of a video in [-1, 1], in the program's own integer type.

        Raises:
            CheckpointError: If the program gives anything else.
        """
        batch, _, *window = video_BCTHW.shape
        grid = self._shape.grid(*window)
        frames, height, width = window
        what = f"{frames} frames of {height}x{width}"
        inputs = (video_BCTHW.to(self.dtype),)
        found = _first(self._call(self._encoder, self._encoder_path, what, *inputs))
        if found is None or found.is_floating_point() or found.dtype == torch.bool:
            given = "nothing" if found is None else f"{found.dtype} {list(found.shape)}"
            raise CheckpointError(
                str(self._encoder_path),
                f"gives {given} first, not integer indices: is it a continuous tokenizer?",
            )
        if found.shape != (batch, *grid):
            raise CheckpointError(
                str(self._encoder_path),
                f"turns frames {window} into indices {list(found.shape)}, not {[batch, *grid]}: "
                f"state its compression and shapes in {self._settings_path}",
            )
        # Of unsigned integers of more than a byte torch knows no minimum.
        wide = found.long()
        low, high = int(wide.min()), int(wide.max())
        if low < 0 or high >= self._shape.codebook_size:
            raise CheckpointError(
                str(self._encoder_path),
                f"gives indices {low}..{high}, outside 0..{self._shape.codebook_size - 1}: state "
                f"its levels or codebook_size in {self._settings_path}",
            )
        return found

    def decode(self, indices_Bthw: Tensor, keep_Bthw: Tensor) -> Tensor:
        """Video in [-1, 1], float32; the fill index stands where ``keep`` is False.

        Raises:
            CheckpointError: If the program gives anything else.
        """
        filled_Bthw = indices_Bthw.long().where(keep_Bthw, self.settings.fill_index)
        filled_Bthw = filled_Bthw.to(self._index_dtype)
        inputs = (filled_Bthw, keep_Bthw) if self._takes_keep else (filled_Bthw,)
        what = f"indices {list(indices_Bthw.shape)}"
        found = _first(self._call(self._decoder, self._decoder_path, what, *inputs))
        t, h, w = indices_Bthw.shape[1:]
        wanted = [
            len(indices_Bthw), 3, 1 + (t - 1) * self._shape.temporal_compression,
            h * self._shape.spatial_compression, w * self._shape.spatial_compression,
        ]  # fmt: skip
        if found is None or not found.is_floating_point() or list(found.shape) != wanted:
            given = "nothing" if found is None else f"{found.dtype} {list(found.shape)}"
            raise CheckpointError(
                str(self._decoder_path),
                f"turns {what} into {given}, not floats {wanted}",
            )
        return found.float()

    @torch.inference_mode()
    def _try(self) -> None:
        """One forward pass each way, of noise from a fixed seed, at the least cost that tells."""
        shape = self._shape
        # Sides differ, so that a swapped axis shows.
        t, h, w = map(min, (2, 4, 6), shape.max_grid or (2, 4, 6))
        frames, height, width = shape.window or (
            1 + (t - 1) * shape.temporal_compression,
            h * shape.spatial_compression,
            w * shape.spatial_compression,
        )
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(1, 3, frames, height, width, generator=generator) * 2 - 1
        indices = self.encode(noise.to(self.device))
        if torch.iinfo(indices.dtype).max < shape.codebook_size - 1:
            raise CheckpointError(
                str(self._encoder_path),
                f"gives {indices.dtype}, too narrow for the {shape.codebook_size} codes of "
                f"{self._settings_path}",
            )
        self._index_dtype = indices.dtype
        # Some positions dropped, some not.
        shown = self.decode(indices, indices.long() % 2 == 0)
        if not shown.isfinite().all():
            raise CheckpointError(
                str(self._decoder_path), f"turns indices {list(indices.shape)} into NaN or infinity"
            )

    def _call(self, program: nn.Module, path: Path, what: str, *inputs: Tensor) -> object:
        try:
            return _run(program, *inputs)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise CheckpointError(
                str(path),
                f"does not run on {what} in {self.dtype} on {self.device} ({last_line(error)}); if "
                f"it takes another precision or one shape alone, say so in {self._settings_path}",
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


def _run(program: nn.Module, *inputs: Tensor) -> object:
    # Unoptimised: the executor would change kernels, and with them bits, after a few calls.
    with torch.jit.optimized_execution(False):  # pyright: ignore[reportPrivateImportUsage]
        try:
            return program(*inputs)
        except torch.jit.Error as error:
            # What a program raises itself, by an assertion say: no RuntimeError for torch.
            raise RuntimeError(last_line(error)) from error


def _first(output: object) -> Tensor | None:
    if isinstance(output, tuple | list) and output:
        output = cast(list[object], output)[0]
    return output if isinstance(output, Tensor) else None
