"""Tokenizers that are somebody else's programs."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from programs import BlockDecoder, BlockEncoder, block_codes, write_programs
from torch import Tensor, nn

from infotok_core.checkpoint import load_checkpoint
from infotok_core.errors import CheckpointError
from infotok_core.opening import identify_tokenizer, open_tokenizer
from infotok_core.programs import ProgramTokenizer, read_programs
from infotok_core.tokenizer import Tokenizer


class Continuous(nn.Module):
    def forward(self, video: Tensor) -> Tensor:
        return F.avg_pool3d(video, [1, 8, 8])


class Swapped(nn.Module):
    def forward(self, video: Tensor) -> Tensor:
        return F.avg_pool3d(video[:, 0, ::4], [1, 8, 8]).transpose(2, 3).int()


class OneShape(nn.Module):
    def forward(self, video: Tensor) -> Tensor:
        return F.avg_pool3d(video.view(1, 3, 9, 32, 32)[:, 0, ::4], [1, 8, 8]).int().abs()


class Asserting(nn.Module):
    def forward(self, video: Tensor) -> Tensor:
        assert video.shape[4] == 512, "the side is not 512"
        return video


class Typed(nn.Module):
    """`block_codes` in another type of integers."""

    def __init__(self, dtype: torch.dtype, largest: int = 255) -> None:
        super().__init__()
        self.dtype, self.largest = dtype, largest

    def forward(self, video: Tensor) -> Tensor:
        return block_codes(video)[0].clamp(max=self.largest).to(self.dtype)


class NotANumber(nn.Module):
    def forward(self, indices: Tensor) -> Tensor:
        t, h, w = indices.size(1), indices.size(2), indices.size(3)
        return torch.full([indices.size(0), 3, t * 4 - 3, h * 8, w * 8], float("nan"))


class Narrow(nn.Module):
    """What holds for the window that is tried, and for no wider one."""

    def forward(self, video: Tensor) -> tuple[Tensor, Tensor]:
        assert video.shape[4] <= 48, "48 columns are all there is"
        return block_codes(video)


class Masked(nn.Module):
    """A decoder that is told what was dropped: white there, black elsewhere."""

    def forward(self, indices: Tensor, keep: Tensor) -> Tensor:
        grey = torch.where(keep, -1.0, 1.0).unsqueeze(1)
        frames = F.interpolate(grey, scale_factor=[4.0, 8.0, 8.0])
        return frames[:, :, 3:].repeat(1, 3, 1, 1, 1)


class Failing(nn.Module):
    def forward(self, indices: Tensor) -> Tensor:
        return indices.float() @ indices.float().new_zeros(1, 1, 77, 1)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    return write_programs(tmp_path / "programs")


def blocks(*levels: int) -> Tensor:
    """One window of 5 frames of 8 x 8 cells, each of one level: uint8 [1, 5, 8, 8 * n, 3]."""
    row = torch.tensor(levels, dtype=torch.uint8).repeat_interleave(8)
    return row.view(1, 1, 1, -1, 1).expand(1, 5, 8, -1, 3).contiguous()


def test_tokens_and_information_are_those_of_the_programs(programs):
    tokenizer = open_tokenizer(programs)
    video = blocks(0, 7, 128, 255)
    video[0, 1:5, 0, 8] = 255
    analysis = tokenizer.analyse(video)
    assert analysis.codes_Bthw[0, 0, 0].tolist() == [0, 7, 128, 255]
    assert analysis.codes_Bthw.dtype == torch.int32
    # Cells that a block average shows exactly are worth nothing, the one with a white dot is not.
    ranked = analysis.information_Bthw.flatten().argsort(descending=True)
    assert ranked[0] == 5
    assert analysis.information_Bthw[0, 1, 0, 1] > 0.02
    assert analysis.information_Bthw[0, 0].max() < 0.01


def test_a_dropped_position_is_the_fill_index(programs):
    tokenizer = open_tokenizer(programs)
    codes = torch.tensor([3, 250]).view(1, 1, 1, 2)
    shown = tokenizer.reconstruct(codes, torch.tensor([True, False]).view(1, 1, 1, 2))
    assert shown[0, 0, 0, :8].unique().tolist() == [3]
    assert shown[0, 0, 0, 8:].unique().tolist() == [128]


def test_a_decoder_that_takes_a_mask_is_given_it(tmp_path):
    tokenizer = ProgramTokenizer.load(write_programs(tmp_path, decoder=Masked()))
    keep = torch.tensor([True, False]).view(1, 1, 1, 2)
    shown = tokenizer.reconstruct(torch.zeros(1, 1, 1, 2, dtype=torch.int32), keep)
    assert shown[0, 0, 0, :8].unique().tolist() == [0]
    assert shown[0, 0, 0, 8:].unique().tolist() == [255]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.int64])
def test_indices_may_be_integers_of_any_kind(programs, tmp_path, toy_video, dtype):
    found = []
    for folder in (programs, write_programs(tmp_path / "typed", encoder=Typed(dtype))):
        tokenizer = open_tokenizer(folder)
        analysis = tokenizer.analyse(toy_video)
        keep = torch.rand(analysis.codes_Bthw.shape, generator=torch.Generator().manual_seed(1))
        shown = tokenizer.reconstruct(analysis.codes_Bthw, keep < 0.5)
        found.append((analysis.codes_Bthw, analysis.information_Bthw, shown))
    assert all(map(torch.equal, *found))


def test_the_same_window_gives_the_same_bits_however_often(programs, toy_video):
    tokenizer = open_tokenizer(programs)
    together = tokenizer.analyse(toy_video)
    for _ in range(4):
        alone = tokenizer.analyse(toy_video[1:2])
        assert torch.equal(alone.information_Bthw[0], together.information_Bthw[1])
        assert torch.equal(alone.codes_Bthw[0], together.codes_Bthw[1])


def test_the_fingerprint_covers_both_programs_and_the_settings(programs):
    before = read_programs(programs).fingerprint
    assert open_tokenizer(programs).fingerprint == before
    assert identify_tokenizer(programs).fingerprint == before
    settings = json.loads((programs / "tokenizer.json").read_text())
    (programs / "tokenizer.json").write_text(json.dumps(settings, indent=3, sort_keys=True))
    assert read_programs(programs).fingerprint == before
    (programs / "tokenizer.json").write_text(json.dumps(settings | {"fill_index": 127}))
    other = read_programs(programs).fingerprint
    data = (programs / "decoder.jit").read_bytes()
    (programs / "decoder.jit").write_bytes((programs / "encoder.jit").read_bytes())
    swapped = read_programs(programs).fingerprint
    (programs / "encoder.jit").write_bytes(data)
    assert len({before, other, swapped, read_programs(programs).fingerprint}) == 4


@pytest.mark.parametrize(
    ("parts", "settings", "message"),
    [
        ({"encoder": Continuous()}, {}, r"encoder\.jit: gives torch\.float32 .* continuous"),
        ({"encoder": Swapped()}, {}, r"encoder\.jit: turns frames \[5, 32, 48\] into indices"),
        ({}, {"spatial_compression": 16}, r"encoder\.jit: turns frames .* not \[1, 2, 4, 6\]"),
        ({}, {"temporal_compression": 8}, r"encoder\.jit: turns frames \[9, 32, 48\]"),
        ({}, {"codebook_size": 130}, r"encoder\.jit: gives indices \d+\.\.\d+, outside 0\.\.129"),
        ({"encoder": OneShape()}, {}, r"encoder\.jit: does not run on 5 frames of 32x48 in .*one"),
        ({"decoder": Failing()}, {}, r"decoder\.jit: does not run on"),
        ({"decoder": NotANumber()}, {}, r"decoder\.jit: turns indices .* into NaN or infinity"),
        ({"encoder": Typed(torch.int8, 127)}, {}, r"encoder\.jit: gives torch\.int8, .* 256 codes"),
        ({"encoder": Asserting()}, {}, r"encoder\.jit: does not run on .*the side is not 512"),
        ({"decoder": BlockEncoder()}, {}, r"decoder\.jit: (does not run|turns indices)"),
    ],
)
def test_programs_that_do_something_else_are_refused(tmp_path, parts, settings, message):
    write_programs(tmp_path, **parts, **settings)
    with pytest.raises(CheckpointError, match=message):
        open_tokenizer(tmp_path)


def test_a_program_that_fails_on_a_later_window_is_named(tmp_path):
    tokenizer = ProgramTokenizer.load(write_programs(tmp_path, encoder=Narrow()))
    with pytest.raises(CheckpointError, match=r"encoder\.jit: does not run .*48 columns are all"):
        tokenizer.analyse(torch.zeros(1, 5, 32, 64, 3, dtype=torch.uint8))


def test_programs_with_few_embeddings_are_tried_within_them(tmp_path):
    tokenizer = ProgramTokenizer.load(write_programs(tmp_path, max_grid=[1, 2, 3]))
    analysis = tokenizer.analyse(torch.zeros(1, 1, 16, 24, 3, dtype=torch.uint8))
    assert analysis.codes_Bthw.shape == (1, 1, 2, 3)


def test_programs_of_one_shape_are_tried_with_it_and_take_no_other(tmp_path):
    write_programs(tmp_path, encoder=OneShape(), window=[9, 32, 32])
    tokenizer = open_tokenizer(tmp_path)
    video = torch.zeros(1, 9, 32, 32, 3, dtype=torch.uint8)
    assert tokenizer.analyse(video).codes_Bthw.shape == (1, 3, 4, 4)
    with pytest.raises(ValueError, match="windows of 9x32x32 alone, not 5x32x32"):
        tokenizer.analyse(video[:, :5])


def test_a_traced_and_a_frozen_program_do_as_well_as_a_scripted_one(tmp_path, programs):
    write_programs(tmp_path / "other")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        video = torch.zeros(1, 3, 5, 16, 16)
        traced = torch.jit.trace(BlockEncoder(), video)
        frozen = torch.jit.freeze(torch.jit.script(BlockDecoder().eval()))
    traced.save(str(tmp_path / "other" / "encoder.jit"))
    frozen.save(str(tmp_path / "other" / "decoder.jit"))
    video = blocks(1, 2, 3, 4)
    a, b = (open_tokenizer(p).analyse(video) for p in (programs, tmp_path / "other"))
    assert torch.equal(a.codes_Bthw, b.codes_Bthw)
    assert torch.equal(a.information_Bthw, b.information_Bthw)


def test_a_program_with_a_precision_takes_no_other(tmp_path):
    write_programs(tmp_path, precision="bfloat16")
    assert identify_tokenizer(tmp_path).precision == "bfloat16"
    with pytest.raises(ValueError, match=r"compute in bfloat16 alone .* not torch\.float32"):
        open_tokenizer(tmp_path, dtype=torch.float32)
    with pytest.raises(ValueError, match="the CPU computes in float32 alone"):
        open_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("decoder.jit", None, r"decoder\.jit: cannot be read: No such file"),
        ("encoder.jit", b"", r"encoder\.jit: is empty"),
        ("encoder.jit", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        ("decoder.jit", b"PK\x03\x04 and no more", r"decoder\.jit: is truncated"),
        ("tokenizer.json", b"{", r"tokenizer\.json: is not JSON"),
        ("tokenizer.json", b"[]", r"tokenizer\.json: is not a JSON object"),
        ("tokenizer.json", b'{"fil_index": 1}', r"tokenizer\.json: unknown keys \['fil_index'\]"),
    ],
)
def test_a_broken_file_is_named(programs, name, content, message):
    if content is None:
        (programs / name).unlink()
    else:
        (programs / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        open_tokenizer(programs)


def test_weights_are_not_programs_and_programs_not_weights(tmp_path, programs):
    torch.save({"a": torch.zeros(1)}, programs / "encoder.jit")
    with pytest.raises(CheckpointError, match=r"encoder\.jit: is no TorchScript program"):
        open_tokenizer(programs)
    with pytest.raises(CheckpointError, match="holds programs, which are run and not loaded"):
        load_checkpoint(programs)
    with pytest.raises(CheckpointError, match="is one program: name the directory"):
        open_tokenizer(programs / "decoder.jit")
    with pytest.raises(CheckpointError, match="nowhere: does not exist"):
        open_tokenizer(tmp_path / "nowhere")
    assert isinstance(open_tokenizer(), Tokenizer)
