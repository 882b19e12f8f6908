"""What a tokenizer that is none of ours means for a corpus: vocabulary, windows, precision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evaluations import write_small_checkpoint
from programs import write_programs
from work_folders import analysed, window

from jobs.config import load_config
from pipelines.errors import PipelineError
from pipelines.run import Corpus
from pipelines.shards import tokenise_shard


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Listed, and never opened."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").write_bytes(b"12345")
    return tmp_path / "in"


def corpus(folder: Path, *settings: str, **programs: Any) -> Corpus:
    checkpoint = write_programs(folder / "programs", **programs)
    config = load_config(None, [f"tokenizer.checkpoint={checkpoint}", *settings])
    return Corpus.open(config, output=str(folder / "out"))


def test_a_vocabulary_that_does_not_fit_uint16_is_refused(tmp_path: Path):
    assert corpus(tmp_path, codebook_size=65536).tokenizer.shape.codebook_size == 65536
    with pytest.raises(PipelineError, match=r"codebook of 65,537: rows hold uint16 tokens, 65,536"):
        corpus(tmp_path, codebook_size=65537)


@pytest.mark.parametrize(
    ("settings", "programs", "message"),
    [
        (["window.frames=13"], {"temporal_compression": 8}, r"1 \+ 8k frames, not 13"),
        (["space.size=48"], {"spatial_compression": 32}, "multiples of 32, not 48x48"),
        (["space.mode=keep"], {"spatial_compression": 32}, "multiples of 16, not 32"),
        ([], {"window": [9, 32, 32]}, "windows of 9x32x32 alone, not 33x256x256"),
        (["space.size=512"], {"max_grid": [9, 32, 32]}, r"\(9, 64, 64\) exceeds the embeddings"),
        (
            ["tokenizer.dtype=float32"],
            {"precision": "bfloat16"},
            r"bfloat16 alone: set tokenizer\.dtype = bfloat16",
        ),
    ],
)
def test_windows_it_does_not_take_are_refused_before_anything_is_decoded(
    tmp_path: Path, videos: Path, settings: list[str], programs: dict[str, Any], message: str
):
    other = corpus(tmp_path, *settings, **programs)
    for act in (other.plan, other.preview):
        with pytest.raises(PipelineError, match=message):
            act(str(videos))


def test_windows_it_takes_are_planned(tmp_path: Path, videos: Path):
    fitting = corpus(tmp_path, "window.frames=9", "space.size=32", window=[9, 32, 32])
    assert fitting.plan(str(videos)).head.videos == 1


@pytest.mark.parametrize(
    ("second_pass", "message"),
    [
        ("reuse", r"tokens depend on the rate, .* cannot be selected from \(second_pass = reuse\)"),
        ("recompute", "second_pass = recompute makes the tokens of pass one again"),
    ],
)
def test_a_budget_aware_compressor_is_refused_at_once(
    tmp_path: Path, second_pass: str, message: str
):
    checkpoint = write_small_checkpoint(tmp_path / "aware", budget_aware=True)
    settings = [f"tokenizer.checkpoint={checkpoint}", f"runtime.second_pass={second_pass}"]
    with pytest.raises(PipelineError, match=message):
        Corpus.open(load_config(None, settings), output=str(tmp_path / "out"))


def test_a_damaged_program_is_named(tmp_path: Path):
    (write_programs(tmp_path / "p") / "decoder.jit").unlink()
    config = load_config(None, [f"tokenizer.checkpoint={tmp_path / 'p'}"])
    with pytest.raises(PipelineError, match=r"tokenizer: checkpoint .*decoder\.jit: cannot be"):
        Corpus.open(config, output=str(tmp_path / "out"))


def test_programs_that_do_not_do_what_they_say_are_found_on_a_cpu_before_the_actors(tmp_path: Path):
    other = corpus(tmp_path, spatial_compression=16)
    other.try_tokenizer("cuda")
    with pytest.raises(PipelineError, match=r"tokenizer: checkpoint .*encoder\.jit: turns frames"):
        other.try_tokenizer("cpu")


def test_rows_hold_the_vocabulary_of_the_tokenizer_and_no_more(tmp_path: Path):
    video = [window(0.1, index=index) for index in range(2)]
    spec = analysed(tmp_path / "work", {"a.mp4": video}).spec(tmp_path / "out", rate=1.0)
    highest = max(int(part.codes.max()) for part in video)
    with pytest.raises(ValueError, match=f"code {highest} is out of range"):
        tokenise_shard(replace(spec, num_codes=highest), 0)
    assert tokenise_shard(replace(spec, num_codes=highest + 1), 0).totals.clips == 2


@pytest.mark.parametrize("settings", [{}, {"precision": "bfloat16"}], ids=["asked", "made for"])
def test_half_precision_without_a_gpu_is_refused_before_the_actors(tmp_path: Path, settings: Any):
    checkpoint = write_programs(tmp_path / "p", **settings)
    config = load_config(
        None, [f"tokenizer.checkpoint={checkpoint}", "tokenizer.dtype=bfloat16", "window.frames=9"]
    )
    opened = Corpus.open(config, output=str(tmp_path / "out"))
    opened.try_tokenizer("cuda")
    with pytest.raises(PipelineError, match=r"bfloat16 needs a GPU: the CPU computes in float32"):
        opened.try_tokenizer("cpu")
