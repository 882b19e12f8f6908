"""An evaluation from videos to numbers, each checked against another way to get it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluations import FRAMES, SIDE, WINDOWS, write_evaluation_videos, write_small_checkpoint
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor, nn

from infotok_core.fvd import ClipFeatures
from infotok_core.metrics import frechet_distance
from infotok_core.perceptual import Lpips, VggFeatures
from infotok_core.recipe import Stage
from infotok_core.router import select
from infotok_core.tokenizer import Analysis, Tokenizer
from infotok_core.validation import psnr_by_rate
from pipelines.config import RunConfig, SpaceConfig, WindowConfig
from pipelines.errors import PipelineError
from pipelines.evaluation.clips import ClipSource
from pipelines.evaluation.evaluate import Evaluation, evaluate
from pipelines.evaluation.measuring import Metrics
from pipelines.evaluation.settings import Clocks, EvaluatedTokenizer, EvaluationConfig
from pipelines.metrics import psnr_db, ssim
from schemas.evaluation import ClipReport, Outcome
from schemas.statistics import ElboAccumulator, solve_rule
from schemas.token_bins import token_score_bins
from schemas.tokens import bpp16
from schemas.units import window_sum

RUN = RunConfig(window=WindowConfig(frames=FRAMES), space=SpaceConfig(size=SIDE))
CLOCKS = Clocks(wall=time.perf_counter, cpu=time.process_time)
RATES = (1.0, 0.5, 0.25)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_evaluation_videos(tmp_path_factory.mktemp("evaluation") / "videos")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(write_small_checkpoint(tmp_path_factory.mktemp("small")))


def run(
    folder: Path,
    tokenizer: EvaluatedTokenizer,
    config: EvaluationConfig,
    metrics: Metrics | None = None,
) -> Evaluation:
    with ClipSource(str(folder), RUN) as source:
        return evaluate(
            source,
            tokenizer,
            config,
            metrics=metrics or Metrics(),
            workers=0,
            clocks=CLOCKS,
            say=lambda line: None,
        )


@pytest.fixture(scope="module")
def full(folder: Path, tokenizer: Tokenizer) -> Evaluation:
    config = EvaluationConfig(
        rates=RATES, sweep="full", grid_points=8, search_psnr_db=(14.0, 60.0), measure_all=True
    )
    return run(folder, tokenizer, config)


@pytest.fixture(scope="module")
def frames(folder: Path) -> list[np.ndarray]:
    with ClipSource(str(folder), RUN) as source:
        return [window.frames_THWC for uri in WINDOWS for window in source.windows(uri)]


def outcomes(evaluation: Evaluation, router: str, selection: str = "information") -> list[Outcome]:
    return [
        outcome
        for outcome in evaluation.outcomes
        if (outcome.router, outcome.selection) == (router, selection)
    ]


def points(evaluation: Evaluation, outcome: Outcome) -> list:
    return [
        clip.point(outcome.selection, count)
        for clip, count in zip(evaluation.clips, outcome.num_tokens, strict=True)
    ]


def test_every_full_window_is_a_clip_and_what_is_none_is_named(full: Evaluation):
    found = [(clip.source, clip.window_index) for clip in full.clips]
    assert found == [(uri, index) for uri, count in WINDOWS.items() for index in range(count)]
    assert {item.source: item.reason for item in full.left_out} == {
        "broken.mp4": "NOT_A_VIDEO",
        "short.mp4": "TOO_SHORT",
    }


def test_the_full_sweep_holds_every_router_selection_and_rate(full: Evaluation):
    for router in ("static", "global_elbo", "global_elbo_paper"):
        for selection in ("information", "r2l", "jump"):
            found = outcomes(full, router, selection)
            assert [outcome.rate_target for outcome in found] == list(RATES)
    for router in ("optimal_error", "optimal_psnr"):
        assert [outcome.rate_target for outcome in outcomes(full, router)] == [0.5, 0.25]
    targets = [outcome.rate_target for outcome in outcomes(full, "search")]
    assert targets == [0.5, 0.25, None, None]


def test_clips_come_out_as_the_tokenizer_and_other_metrics_say(
    full: Evaluation, frames: list[np.ndarray], tokenizer: Tokenizer
):
    (outcome,) = [item for item in outcomes(full, "global_elbo") if item.rate_target == 0.5]
    for clip, source, count in zip(full.clips, frames, outcome.num_tokens, strict=True):
        analysis = tokenizer.analyse(torch.from_numpy(source)[None])
        information = analysis.information_Bthw[0].numpy().astype(np.float16)
        assert clip.elbo == pytest.approx(information.astype(np.float64).mean())
        keep = torch.from_numpy(select(information, count))[None]
        result = tokenizer.reconstruct(analysis.codes_Bthw, keep)[0].numpy()
        point = clip.point("information", count)
        assert point.psnr_db == pytest.approx(peak_signal_noise_ratio(source, result))
        assert point.psnr_frames_db == pytest.approx(psnr_db(source, result), abs=1e-4)
        assert point.ssim == pytest.approx(ssim(source, result))
        error = np.square(source.astype(np.int64) - result).sum()
        assert point.squared_error == error


def test_psnr_is_that_of_the_training_loop_up_to_rounding_to_uint8(
    full: Evaluation, frames: list[np.ndarray], tokenizer: Tokenizer
):
    clips = [torch.from_numpy(clip) for clip in frames]
    for rate, outcome in zip(RATES, outcomes(full, "static"), strict=True):
        wanted = [
            psnr_by_rate(tokenizer.network, [clip], (rate,), Stage(steps=1))[rate] for clip in clips
        ]
        found = [point.psnr_db for point in points(full, outcome)]
        assert found == pytest.approx(wanted, abs=0.02)


def test_the_exact_router_meets_the_rate_and_follows_the_corpus_rule(
    full: Evaluation, frames: list[np.ndarray], tokenizer: Tokenizer
):
    bins, sums = ElboAccumulator(), []
    for source in frames:
        analysis = tokenizer.analyse(torch.from_numpy(source)[None])
        sums.append(window_sum(analysis.information_Bthw[0].numpy().astype(np.float16)))
        bins.add(sums[-1], full.clips[0].cells)
    cells = full.clips[0].cells
    for rate, outcome in zip(RATES, outcomes(full, "global_elbo"), strict=True):
        assert abs(sum(outcome.num_tokens) - rate * cells * len(frames)) <= 1
        rule = solve_rule(bins.freeze(), rate=rate, min_rate=1 / 16)
        for total, count in zip(sums, outcome.num_tokens, strict=True):
            assert abs(rule.rate(total, cells) * cells - count) <= 1


def test_one_threshold_meets_the_rate_and_keeps_no_token_below_one_that_it_drops(
    full: Evaluation, frames: list[np.ndarray], tokenizer: Tokenizer
):
    cells = full.clips[0].cells
    maps = [
        tokenizer.analyse(torch.from_numpy(source)[None]).information_Bthw[0].numpy()
        for source in frames
    ]
    bins = [token_score_bins(information.astype(np.float16)) for information in maps]
    for rate, outcome in zip(RATES, outcomes(full, "token_threshold"), strict=True):
        assert abs(sum(outcome.num_tokens) - rate * cells * len(frames)) <= 1
        kept = [found[:count] for found, count in zip(bins, outcome.num_tokens, strict=True)]
        dropped = [found[count:] for found, count in zip(bins, outcome.num_tokens, strict=True)]
        beyond = [int(found[-1]) for found in kept if len(found) > cells // 16]
        edge = max((int(found[0]) for found in dropped if len(found)), default=0)
        assert min(beyond) >= edge
    for selection in ("r2l", "jump"):
        assert outcomes(full, "token_threshold", selection) == []


def test_aggregates_are_what_their_names_say(full: Evaluation):
    pixels = FRAMES * SIDE * SIDE
    cells = [clip.cells for clip in full.clips]
    for outcome in full.outcomes:
        chosen = points(full, outcome)
        tokens = sum(outcome.num_tokens)
        assert outcome.rate == tokens / sum(cells)
        assert outcome.bpp16 == pytest.approx(bpp16(tokens, sum(cells), pixels * len(cells)))
        assert outcome.psnr_db == pytest.approx(np.mean([point.psnr_db for point in chosen]))
        mse = sum(point.squared_error for point in chosen) / (3 * pixels * len(cells))
        assert outcome.psnr_pooled_db == pytest.approx(10 * np.log10(255**2 / mse))
        assert outcome.ssim == pytest.approx(np.mean([point.ssim for point in chosen]))
        assert (outcome.lpips, outcome.fvd) == (None, None)


def test_all_tokens_are_decoded_once_and_serve_every_rule(full: Evaluation):
    for clip in full.clips:
        keys = [(point.selection, point.num_tokens) for point in clip.points]
        assert len(keys) == len(set(keys))
        assert [kind for kind, count in keys if count == clip.cells] == ["all"]


def test_the_optimum_spends_no_more_and_is_never_worse(full: Evaluation):
    for router, key in (("optimal_error", "psnr_pooled_db"), ("optimal_psnr", "psnr_db")):
        for best in outcomes(full, router):
            (elbo,) = [
                item
                for item in outcomes(full, "global_elbo")
                if item.rate_target == best.rate_target
            ]
            assert sum(best.num_tokens) <= sum(elbo.num_tokens)
            assert best.bound_db >= getattr(best, key) - 1e-9
            for other in full.outcomes:
                fits = sum(other.num_tokens) <= sum(elbo.num_tokens)
                if other.selection == "information" and fits and other.threshold_db is None:
                    assert getattr(best, key) >= getattr(other, key) - 1e-9


def test_the_search_keeps_to_its_threshold_and_counts_its_passes(full: Evaluation):
    for found in outcomes(full, "search"):
        # Ranking by information, then a binary search among eight rates.
        assert found.decoder_passes == (1 + 3,) * len(full.clips)
        for clip, count in zip(full.clips, found.num_tokens, strict=True):
            passed = clip.point("information", count).psnr_db >= found.threshold_db - 1e-9
            assert passed or count == clip.cells
    last = outcomes(full, "search")[-1]
    assert last.threshold_db == pytest.approx(60)
    assert last.num_tokens == tuple(clip.cells for clip in full.clips)


def test_passes_are_counted_until_the_tokens_are_chosen(full: Evaluation):
    def passes(router: str, selection: str) -> set[int]:
        found = outcomes(full, router, selection)
        assert all(set(outcome.encoder_passes) == {1} for outcome in found)
        return {count for outcome in found for count in outcome.decoder_passes}

    assert passes("static", "r2l") == passes("static", "jump") == {0}
    assert passes("static", "information") == passes("global_elbo", "information") == {1}
    assert passes("global_elbo", "r2l") == {1}
    (first, *_) = outcomes(full, "optimal_error")
    curve = [p for p in full.clips[0].points if p.selection in ("all", "information")]
    assert first.decoder_passes[0] == len(curve)


def test_times_are_measured_and_add_up(full: Evaluation):
    static, search = outcomes(full, "static")[0], outcomes(full, "search")[0]
    assert static.tokenise_ms == pytest.approx(np.median([clip.analyse_ms for clip in full.clips]))
    assert search.tokenise_ms > static.tokenise_ms > 0
    assert search.tokenise_cpu_ms > static.tokenise_cpu_ms > 0
    assert static.reconstruct_ms > 0
    assert static.reconstruct_cpu_ms > 0


def test_the_basic_sweep_decodes_only_what_its_routers_ask_for(folder: Path, tokenizer: Tokenizer):
    found = run(folder, tokenizer, EvaluationConfig(rates=(1.0, 0.5), max_windows=2))
    assert len(found.clips) == 2
    assert {item.source for item in found.clips} <= set(WINDOWS)
    assert [(item.router, item.rate_target) for item in found.outcomes] == [
        ("static", 1.0),
        ("global_elbo", 1.0),
        ("token_threshold", 1.0),
        ("static", 0.5),
        ("global_elbo", 0.5),
        ("token_threshold", 0.5),
    ]
    assert all(len(clip.points) <= 4 for clip in found.clips)


def test_a_budget_aware_compressor_is_asked_for_every_mask(
    folder: Path, frames: list[np.ndarray], tmp_path: Path
):
    aware = Tokenizer.load(write_small_checkpoint(tmp_path / "aware", budget_aware=True))
    found = run(folder / "noisy.mp4", aware, EvaluationConfig(rates=(1.0, 0.5)))
    full, half = outcomes(found, "static")
    assert set(full.encoder_passes) == {1}
    assert set(half.encoder_passes) == {2}
    source = torch.from_numpy(frames[-1])[None]
    information = aware.analyse(source).information_Bthw[0].numpy().astype(np.float16)
    keep = torch.from_numpy(select(information, half.num_tokens[-1]))[None]
    shown = aware.reconstruct(aware.encode_kept(source, keep), keep).numpy()
    error = np.square(source.numpy().astype(np.int64) - shown).sum()
    assert points(found, half)[-1].squared_error == error


class Moments(nn.Module):
    """Called as I3D is: three features of a clip."""

    def forward(
        self, x: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
    ) -> Tensor:
        clips = x.flatten(1)
        return torch.stack([clips.mean(1), clips.std(1), clips[:, 0]], 1)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_lpips_and_fvd_are_measured_where_there_are_networks(
    folder: Path, tokenizer: Tokenizer, frames: list[np.ndarray]
):
    torch.manual_seed(0)
    lpips = Lpips(VggFeatures())
    for index in range(5):
        lpips.get_buffer(f"head{index}").fill_(0.1)
    metrics = Metrics(
        lpips=lpips, features=ClipFeatures(torch.jit.script(Moments()), source="moments")
    )
    found = run(folder / "moving.mp4", tokenizer, EvaluationConfig(rates=(1.0, 0.25)), metrics)
    full, last = outcomes(found, "static")
    assert all(point.lpips > 0 for clip in found.clips for point in clip.points)
    assert last.lpips == pytest.approx(np.mean([point.lpips for point in points(found, last)]))
    others, sources = [], []
    for source in frames[1:4]:
        analysis = tokenizer.analyse(torch.from_numpy(source)[None])
        keep = torch.ones_like(analysis.codes_Bthw, dtype=torch.bool)
        video = tokenizer.reconstruct(analysis.codes_Bthw, keep)[0].numpy()
        for features, clip in ((others, video), (sources, source)):
            values = clip.transpose(3, 0, 1, 2).astype(np.float64).ravel() / 255 * 2 - 1
            features.append([values.mean(), values.std(ddof=1), values[0]])
    assert full.fvd == pytest.approx(
        frechet_distance(np.array(sources), np.array(others)), rel=1e-3, abs=1e-6
    )


class Adapter:
    """Another tokenizer behind the same interface: the default one, by its public face."""

    def __init__(self, inner: Tokenizer, *, information: float | None = None) -> None:
        self.fingerprint, self.device, self.config = "other", inner.device, inner.config
        self._inner = inner
        self._information = information

    def analyse(self, video_u8_BTHWC: Tensor) -> Analysis:
        found = self._inner.analyse(video_u8_BTHWC)
        if self._information is None:
            return found
        information = torch.full_like(found.information_Bthw, self._information)
        return Analysis(codes_Bthw=found.codes_Bthw, information_Bthw=information)

    def reconstruct(self, codes_Bthw: Tensor, keep_Bthw: Tensor) -> Tensor:
        return self._inner.reconstruct(codes_Bthw, keep_Bthw)


def test_any_tokenizer_with_the_interface_can_be_evaluated(folder: Path, tokenizer: Tokenizer):
    config, folder = EvaluationConfig(rates=(0.5,)), folder / "noisy.mp4"
    mine, other = (run(folder, item, config) for item in (tokenizer, Adapter(tokenizer)))

    def numbers(clip: ClipReport) -> list[tuple]:
        return [(point.num_tokens, point.squared_error, point.ssim) for point in clip.points]

    assert list(map(numbers, mine.clips)) == list(map(numbers, other.clips))
    blind = run(folder, Adapter(tokenizer, information=0.0), config)
    assert all(outcome.rate == pytest.approx(0.5, abs=0.02) for outcome in blind.outcomes)


def test_information_that_is_no_number_ends_the_run_with_the_place(
    folder: Path, tokenizer: Tokenizer
):
    broken = Adapter(tokenizer, information=float("nan"))
    with pytest.raises(PipelineError, match=r"flat.mp4, window 0: .*information is not finite"):
        run(folder, broken, EvaluationConfig())


def test_windows_that_the_tokenizer_does_not_take_are_a_sentence(
    folder: Path, tokenizer: Tokenizer
):
    run_config = RUN.model_copy(update={"space": SpaceConfig(size=16 * 49)})
    with (
        ClipSource(str(folder / "flat.mp4"), run_config) as source,
        pytest.raises(PipelineError, match="does not take these windows: grid"),
    ):
        evaluate(
            source, tokenizer, EvaluationConfig(), metrics=Metrics(), workers=0, clocks=CLOCKS,
            say=lambda line: None,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rates": ()}, "some different numbers"),
        ({"rates": (0.5, 0.5)}, "some different numbers"),
        ({"rates": (0.5, 1.5)}, "rates must be in"),
        ({"rates": (0.05,)}, "rates must be in"),
        ({"min_rate": 0.0}, "min_rate must be in"),
        ({"max_windows": 0}, "max_windows must be at least 1"),
        ({"grid_points": 0}, "grid_points must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict, message: str):
    with pytest.raises(ValueError, match=message):
        EvaluationConfig(**wrong)
