from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from infotok_core.fsq import FSQ
from infotok_core.program_settings import (
    ProgramSettings,
    read_settings,
    settings_text,
    zero_index,
)

LEVELS = st.lists(st.integers(2, 9), min_size=1, max_size=6).map(tuple)


def test_the_defaults_are_those_of_the_published_family(tmp_path):
    settings = read_settings(tmp_path)
    assert settings == ProgramSettings()
    assert (settings.codebook_size, settings.fill_index) == (64000, 32036)
    assert (settings.temporal_compression, settings.spatial_compression) == (4, 8)


@given(levels=LEVELS)
def test_the_fill_of_an_fsq_is_the_index_of_the_zero_vector(levels):
    settings = ProgramSettings.from_document({"levels": list(levels)})
    assert settings.codebook_size == math.prod(levels)
    index = torch.tensor(settings.fill_index).view(1, 1, 1, 1)
    assert not FSQ(levels).decode(index).any()


@given(levels=LEVELS, compression=st.integers(1, 16), data=st.data())
def test_what_is_written_is_read_back(tmp_path_factory, levels, compression, data):
    size = math.prod(levels)
    settings = ProgramSettings(
        temporal_compression=compression,
        levels=data.draw(st.sampled_from([levels, None])),
        codebook_size=size,
        fill_index=data.draw(st.integers(0, size - 1)),
        precision=data.draw(st.sampled_from([None, "float32", "bfloat16"])),
        window=data.draw(st.sampled_from([None, (1 + compression, 16, 24)])),
        max_grid=data.draw(st.sampled_from([None, (3, 2, 9)])),
    )
    folder = tmp_path_factory.mktemp("settings")
    (folder / "tokenizer.json").write_text(settings_text(settings))
    assert read_settings(folder) == settings


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"fil": 1}, r"unknown keys \['fil'\]; there are \['codebook_size'"),
        ({"levels": [8, 8], "codebook_size": 63}, r"make 64 codes, codebook_size is 63"),
        ({"levels": [8, 1]}, "at least two values"),
        ({"levels": []}, "levels is a list of positive"),
        ({"levels": None}, "codebook_size is needed"),
        ({"codebook_size": 256}, "fill_index is needed"),
        ({"codebook_size": 256, "fill_index": 256}, r"fill_index 256 exceeds 0\.\.255"),
        ({"codebook_size": 0, "fill_index": 0}, "codebook_size is at least 1"),
        ({"spatial_compression": 0}, "compression is at least 1"),
        ({"spatial_compression": "8"}, "spatial_compression is a whole number, not '8'"),
        ({"temporal_compression": True}, "temporal_compression is a whole number"),
        ({"precision": "float16"}, "float32 or bfloat16, not 'float16'"),
        ({"window": [9, 32]}, "window is a list of 3 positive"),
        ({"window": [8, 32, 32]}, r"1 \+ 4k frames, not 8"),
        ({"max_grid": 3}, "max_grid is a list of 3"),
        ({"format_version": 2}, "2 is newer than 1"),
    ],
)
def test_settings_that_make_no_sense_say_why(document, message):
    with pytest.raises(ValueError, match=message):
        ProgramSettings.from_document(document)


def test_another_quantiser_has_a_size_and_a_fill():
    settings = ProgramSettings.from_document({"codebook_size": 1024, "fill_index": 7})
    assert settings.levels is None
    assert settings.shape.codebook_size == 1024
    assert json.loads(settings_text(settings))["levels"] is None


def test_the_zero_index_of_the_published_levels():
    assert zero_index((8, 8, 8, 5, 5, 5)) == 32036
