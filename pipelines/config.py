"""Every choice a run can make, as frozen, typed, validated data.

A `RunConfig` is read from TOML (see ``jobs/config.py``), overridden with ``--set a.b=value``,
and stored, as it took effect, beside the output. An unknown key is an error. Which fields decide
the *content* of the corpus, and therefore its identity, is said by `RunConfig.analysis_identity`
(pass one) and `RunConfig.tokens_identity` (pass two); all other fields may change between a kill
and the resume without changing one byte of the output.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from infotok_core.precision import default_dtype
from schemas.rates import Exponent

__all__ = [
    "AnalysisConfig",
    "DecodeLimits",
    "OutputConfig",
    "RoutingConfig",
    "RunConfig",
    "RuntimeConfig",
    "SourceConfig",
    "SpaceConfig",
    "StatisticsConfig",
    "StorageConfig",
    "TokenizerConfigRef",
    "WindowConfig",
]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StorageConfig(_Frozen):
    """How to reach a store; credentials come from the environment or the profile alone."""

    endpoint_url: str | None = None
    """S3 endpoint, for stores other than AWS: ``http://127.0.0.1:9000``."""
    profile: str | None = None
    """Named profile of ``~/.aws/config``."""
    region: str | None = None
    anonymous: bool = False
    """Read a public bucket without credentials."""

    @field_validator("endpoint_url")
    @classmethod
    def _no_credentials(cls, url: str | None) -> str | None:
        # It is stored beside the output. The message must not repeat it.
        if url is not None and "@" in urlsplit(url).netloc:
            raise ValueError("must not hold credentials; they come from the environment or profile")
        return url


class SourceConfig(_Frozen):
    """Which objects are videos of the corpus."""

    include: tuple[str, ...] = ("*",)
    """Glob patterns; hidden files are never listed. Without a slash they speak of the file name,
    with one of the path below the source root: ``*`` stays in its folder, ``**`` does not."""
    exclude: tuple[str, ...] = ()
    uri_column: str = "uri"
    """Column of a CSV/JSONL/Parquet manifest that holds the URI; other columns ride along."""


class WindowConfig(_Frozen):
    """How a video is cut in time. A window is the paper's clip."""

    frames: Annotated[int, Field(ge=1, le=193)] = 33
    """Frames per window: 1 + 4k."""
    overlap: Annotated[int, Field(ge=0)] = 0
    """Frames shared with the window before."""
    fps: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Resample by presentation time (last frame with pts <= t); None keeps every frame."""
    tail: Literal["pad", "drop"] = "pad"
    """``pad``: run the last, shorter window at full shape, keep the latent frames with content."""

    @model_validator(mode="after")
    def _check(self) -> WindowConfig:
        if self.frames % 4 != 1:
            raise ValueError(f"window.frames must be 1 + 4k, not {self.frames}")
        if self.overlap >= self.frames:
            raise ValueError(
                f"window.overlap {self.overlap} must be smaller than frames {self.frames}"
            )
        return self


class SpaceConfig(_Frozen):
    """How a frame is cut and scaled."""

    mode: Literal["crop", "keep"] = "crop"
    """``crop``: short side to ``size``, centre crop to a square. ``keep``: short side to ``size``,
    aspect kept, both sides cropped to multiples of 16."""
    size: Annotated[int, Field(ge=16, le=2048, multiple_of=16)] = 256


class DecodeLimits(_Frozen):
    """What one video may cost before it is set aside."""

    max_pixels: Annotated[int, Field(gt=0)] = 8192 * 4352
    """Pixels of one source frame."""
    max_frames: Annotated[int, Field(gt=0)] = 20_000_000
    """Decoded frames of one video."""
    max_bytes: Annotated[int, Field(gt=0)] = 1 << 40
    """Size of the source object."""
    stall_s: Annotated[float, Field(gt=0)] = 60.0
    """Seconds without progress before the decoder is killed; packets that move are progress."""
    total_s: Annotated[float, Field(gt=0)] = 6 * 3600.0
    """Seconds of decoding (time spent waiting for the consumer excluded) for one video."""
    memory_mb: Annotated[int, Field(ge=256)] = 4096
    """Address space of the decoding process, above what it needs at rest."""
    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """Starts of a video or unit whose process died, before it is set aside. Of a shard of pass two,
    or of a tokenizer that is loaded: before the run ends and says so."""


class TokenizerConfigRef(_Frozen):
    """Which tokenizer, and how it computes."""

    checkpoint: str = "default"
    """``default`` (shipped), a directory of ours, a published ``.pt`` file, or a directory of
    TorchScript programs (docs/plugin.md)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """``auto``: float32 on CPU, on a GPU float16 (docs/performance.md says what it costs); programs
    compute in what they were made for."""
    batch_size: Annotated[int, Field(ge=1, le=256)] = 8
    """Windows per GPU batch, always padded to this many. On CPU windows run one at a time."""
    fixed_places: bool = True
    """Each window has a place of its own in a GPU batch, because the last bits of some kernels
    depend on the place (of the published network 10 tokens in a million do). False: any place, so
    batches are somewhat fuller, and a corpus made again may not be the same byte for byte."""
    cpu_threads: Annotated[int, Field(ge=1)] = 2

    def dtype_on(self, device: str) -> str:
        """What a network computes in on ``cpu`` or ``cuda``."""
        return default_dtype(device) if self.dtype == "auto" else self.dtype


class AnalysisConfig(_Frozen):
    """What pass one says of the tokens."""

    information: Literal["elbo", "latent"] = "elbo"
    """``elbo``: measured on the full-rate reconstruction. ``latent``: predicted by the checkpoint's
    latent router, without a decoder pass; statistics then describe predictions."""


class StatisticsConfig(_Frozen):
    """What E[ELBO] and the budget are solved on."""

    sample: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the videos, chosen by their ids, that the statistics come from; they are frozen as
    soon as these are analysed. Below 1 the asked rate is met approximately."""


class RoutingConfig(_Frozen):
    """How many tokens each window gets, and which."""

    rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Token-weighted mean share of kept tokens over the corpus."""
    router: Literal["global_elbo", "static", "token_threshold"] = "global_elbo"
    """``global_elbo``: a window gets tokens by its ELBO. ``static``: every window the same rate.
    ``token_threshold``: a window keeps the tokens whose information is above t * ELBO ** 0.5, one t
    for the corpus (docs/evaluation.md). For the exact budget alone; pass one counts for it, so it
    is chosen before."""
    budget: Literal["exact", "paper"] = "exact"
    """``exact``: solve for the scale so that the corpus mean is ``rate`` in spite of clipping.
    ``paper``: N = rate * ELBO / E[ELBO] (Eq. 4)."""
    expected_elbo: Annotated[float, Field(gt=0)] | None = None
    """Use this E[ELBO] instead of the measured one (implies the paper's rule)."""
    min_rate: Annotated[float, Field(gt=0, le=1)] = 1 / 16
    """Least rate of a window; ``static`` has none."""
    exponent: Exponent = 1.0
    """N is proportional to ELBO ** exponent: 1 as in the paper; 0.25, 0.5 and 0.75 take less from
    easy windows (docs/evaluation.md). For the exact budget alone."""

    @model_validator(mode="after")
    def _check(self) -> RoutingConfig:
        exact = self.budget == "exact" and self.expected_elbo is None
        if self.exponent != 1 and not (exact and self.router == "global_elbo"):
            raise ValueError(
                "routing.exponent other than 1 goes with router = global_elbo and budget = exact"
            )
        if self.router == "token_threshold" and not exact:
            raise ValueError(
                "routing.router = token_threshold goes with budget = exact and no expected_elbo"
            )
        # Said at the start, and not when pass one has taken its hours.
        if self.router != "static" and self.rate < self.min_rate:
            raise ValueError(
                f"routing.rate {self.rate} is below routing.min_rate {self.min_rate}, which every "
                "window keeps"
            )
        return self

    @property
    def token_floor(self) -> float | None:
        """Least rate that pass one counts the scores of tokens with; None: it need not count."""
        return self.min_rate if self.router == "token_threshold" else None


class OutputConfig(_Frozen):
    """What is written."""

    format: Literal["parquet", "webdataset", "both"] = "parquet"
    shard_source_bytes: Annotated[int, Field(gt=0)] = 2 << 30
    """Source bytes per shard (a fixed list of videos)."""
    file_bytes: Annotated[int, Field(gt=0)] = 256 << 20
    """Target size of one data file, before compression."""
    row_group_rows: Annotated[int, Field(gt=0)] = 1024
    parquet_encoding: Literal["byte_stream_split", "dictionary"] = "byte_stream_split"
    split: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")] = "train"
    """First part of every data file's name."""
    licence: str = "unknown"
    """Licence of the corpus, for the dataset card."""


class RuntimeConfig(_Frozen):
    """How the work is spread. Nothing here changes a byte of the output."""

    actors: Annotated[int, Field(ge=1)] | None = None
    """Tokenizer actors; None: ``actors_per_gpu`` for each GPU, or on CPU one per two cores."""
    actors_per_gpu: Annotated[int, Field(ge=1, le=8)] = 1
    """Actors that share a GPU. One is fastest where the GPU is what is waited for: two processes
    take turns on it, and that costs time."""
    calls_per_actor: Annotated[int, Field(ge=1, le=64)] = 24
    """Blocks of units that an actor on a GPU works on at once: while some are taken in and stored,
    the windows of the others fill its batches (short clips want more). On CPU one."""
    decoders: Annotated[int, Field(ge=1)] | None = None
    """Concurrent decode tasks; None: Ray decides from the free CPUs."""
    relist: bool = True
    """A resume lists the source again, and names what changed before it starts. False: it trusts
    the plan; a video that changed is then set aside when it is decoded."""
    wave_videos: Annotated[int, Field(ge=1)] = 32_768
    """Videos that Ray is given at a time. With the next ones actors start anew, which takes some
    20 s with a GPU; the driver holds 5 kB for each, and with ``second_pass = "recompute"`` the
    store all of their tokens. Many GPUs want more."""
    units_per_call: Annotated[int, Field(ge=1, le=64)] = 1
    """Units that an actor takes in at once; 1: as they come, without a copy of their frames."""
    second_pass: Literal["reuse", "recompute"] = "reuse"
    watchdog_s: Annotated[float, Field(gt=0)] = 1800.0
    """Seconds without any progress before the run ends with its own exit code."""
    progress_s: Annotated[float, Field(gt=0)] = 10.0
    single_writer: bool = False
    """Start although the store ignores conditional writes (only one run may write)."""
    max_failure_rate: Annotated[float, Field(ge=0, le=1)] = 1.0
    """The run fails (after writing everything) if more videos than this share are quarantined."""


class RunConfig(_Frozen):
    """The whole configuration of a run."""

    source: SourceConfig = SourceConfig()
    source_storage: StorageConfig = StorageConfig()
    output_storage: StorageConfig = StorageConfig()
    window: WindowConfig = WindowConfig()
    space: SpaceConfig = SpaceConfig()
    limits: DecodeLimits = DecodeLimits()
    tokenizer: TokenizerConfigRef = TokenizerConfigRef()
    analysis: AnalysisConfig = AnalysisConfig()
    statistics: StatisticsConfig = StatisticsConfig()
    routing: RoutingConfig = RoutingConfig()
    output: OutputConfig = OutputConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    def analysis_identity(self) -> dict[str, Any]:
        """Fields that decide what pass one stores; the tokenizer enters by its fingerprint."""
        limits = self.limits.model_dump(include={"max_pixels", "max_frames", "max_bytes"})
        identity: dict[str, Any] = {
            "window": self.window.model_dump(),
            "space": self.space.model_dump(),
            "limits": limits,
            "dtype": self.tokenizer.dtype,
        }
        if self.analysis.information != "elbo":
            # Younger than the rest: a run that does not use it keeps its identity.
            identity["information"] = self.analysis.information
        return identity

    def tokens_identity(self) -> dict[str, Any]:
        """Fields that decide what pass two writes, given pass one."""
        routing = self.routing.model_dump()
        if self.routing.exponent == 1:
            # Younger than the rest, as above.
            del routing["exponent"]
        return {"routing": routing, "output": self.output.model_dump()}
