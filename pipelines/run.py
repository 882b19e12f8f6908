"""A corpus from end to end: the passes in their order, each of which can be called alone.

```
plan ──▶ analyse ──▶ freeze statistics ──▶ tokenise ──▶ finalise
(list)   (decode,     (fold receipts)      (select,     (manifest)
          encode)                           write)
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
import torch

from infotok_core.opening import TokenizerIdentity, open_tokenizer
from pipelines.analyse import analyse, analyse_again
from pipelines.claims import claim_shards
from pipelines.config import RunConfig
from pipelines.errors import IncompleteError, PlanMismatchError
from pipelines.finalise import finalise
from pipelines.observe import Progress, RunControl
from pipelines.plan import Plan, ensure_plan, known_plan, load_plan
from pipelines.plan_draft import draft_plan
from pipelines.reachable import check_reachable
from pipelines.receipt_store import ReceiptStore
from pipelines.shards import shard_spec
from pipelines.sources import Source, open_source
from pipelines.stages import StageSpec
from pipelines.statistics import (
    STATISTICS,
    SUMMARY,
    check_sample,
    freeze_sample,
    freeze_statistics,
    load_statistics,
    sample_videos,
)
from pipelines.storage import Store
from pipelines.timings import timed
from pipelines.tokenise import tokenise
from pipelines.tokenizer_choice import (
    check_device,
    check_windows,
    chosen_tokenizer,
    opening_tokenizer,
)
from pipelines.work import WorkFolder
from schemas.dealing import Rule
from schemas.ids import digest
from schemas.statistics import ElboStatistics

__all__ = ["Corpus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """One output, its work folder and its configuration.

    Attributes:
        tokenizer: Which one, and what it makes of shapes.
    """

    config: RunConfig
    output: Store
    work: Store
    tokenizer: TokenizerIdentity

    @classmethod
    def open(cls, config: RunConfig, *, output: str, work: str | None = None) -> Corpus:
        """Resolve the stores and read the tokenizer's weights; nothing is written.

        Raises:
            PipelineError: If the checkpoint cannot be used.
        """
        store = Store(output, config.output_storage)
        return cls(
            config=config,
            output=store,
            work=Store(work, config.output_storage) if work else store.child("_work"),
            tokenizer=chosen_tokenizer(config),
        )

    def check_stores(self) -> None:
        """Prove that both stores can be written to and honour conditional writes.

        Raises:
            StorageError: If not; ``runtime.single_writer`` lets the second condition pass.
        """
        check_reachable(self.output)
        check_reachable(self.work)
        if not self.config.runtime.single_writer:
            self.output.check_conditional_writes()
            self.work.check_conditional_writes()

    def try_tokenizer(self, device: str) -> None:
        """Run programs once, so that what does not run is said at once and not by every actor.

        Nothing is done on ``cuda``: the GPU may be where the actors are, and not here. Networks of
        ours were checked when the corpus was opened.

        Raises:
            PipelineError: If they do not run, or not as their settings say, or a tokenizer is to
                compute in what only a GPU does.
        """
        check_device(self.config, self.tokenizer, device)
        if not self.tokenizer.programs or device != "cpu":
            return
        with opening_tokenizer():
            open_tokenizer(self.config.tokenizer.checkpoint, device=device)

    def preview(self, input_url: str) -> dict[str, Any]:
        """What a run would do, from a listing alone."""
        source = self.source(input_url)
        with draft_plan(source, self.config, tokenizer=self.tokenizer.fingerprint) as draft:
            head = draft.head
        fields = {"plan_id", "source_root", "videos", "num_bytes", "shards"}
        return {"output": self.output.url, "work": self.work.url, **head.model_dump(include=fields)}

    def source(self, input_url: str) -> Source:
        """Find INPUT and begin to list it; nothing is written.

        Raises:
            PipelineError: If there is no such thing, or the tokenizer does not take the windows of
                the configuration.
        """
        check_windows(self.config, self.tokenizer)
        if self.config.tokenizer.device == "cpu":
            # What `auto` comes to is known when Ray runs. A plan is bound to the precision.
            check_device(self.config, self.tokenizer, "cpu")
        roots = (self.output.url, self.work.url)
        return open_source(
            input_url, self.config.source, self.config.source_storage, exclude_roots=roots
        )

    def plan(self, source: str | Source) -> Plan:
        """List the source and fix the plan; see `ensure_plan`.

        Args:
            source: INPUT, or what `source` made of it.

        Raises:
            PipelineError: If the tokenizer does not take the windows of the configuration.
        """
        check_windows(self.config, self.tokenizer)
        source = self.source(source) if isinstance(source, str) else source
        now: dict[str, Any] = {"tokenizer": self.tokenizer.fingerprint, "work": self.work}
        if not self.config.runtime.relist:
            plan = known_plan(source, self.config, **now)
            if plan is not None:
                return plan
        return ensure_plan(source, self.config, **now)

    def forget_quarantined(self, reasons: Sequence[str] = ()) -> int:
        """Drop the receipts of quarantined videos (with these reasons), so that they run again.

        The frozen statistics go with them. A corpus already written from them keeps its files:
        tokenise into another output.

        Returns:
            The number of receipts dropped.
        """
        plan = load_plan(self.work)
        receipts = ReceiptStore(plan, self.work)
        dropped = 0
        for block in range(plan.blocks):
            rows = receipts.quarantined(block)
            videos = [row.video_id for row in rows if not reasons or row.reason in reasons]
            if videos and not dropped:
                # First: what is frozen must not outlive the receipts that it was made from.
                self.work.delete(STATISTICS)
                self.work.delete(SUMMARY)
            if videos:
                receipts.reopen(block, videos)
            dropped += len(videos)
        return dropped

    def analyse(self, control: RunControl) -> ElboStatistics:
        """Pass one, to the frozen statistics. Needs a running Ray.

        With ``statistics.sample`` the sample goes first, and what it gives is frozen at once.
        """
        plan = load_plan(self.work)
        reuse = self.config.runtime.second_pass == "reuse"
        spec = self._stage_spec(plan, control, keep_units=reuse)
        sample = sample_videos(plan, self.config.statistics.sample)
        check_sample(plan, spec.work, sample)
        floor = self.config.routing.token_floor
        if sample is not None:
            num_bytes = sum(row["size"] for row in plan.rows(plan.among(sample)))
            first = self._progress(control, "analyse sample", len(sample), num_bytes)
            with timed(first, self.work):
                analyse(plan, spec, first, only=sample)
            freeze_sample(plan, spec.work, sample, token_floor=floor)
        progress = self._progress(control, "analyse", plan.head.videos, plan.head.num_bytes)
        with timed(progress, self.work):
            analyse(plan, spec, progress)
        return freeze_statistics(plan, spec.work, sample, token_floor=floor)

    def analysed(self) -> tuple[Plan, WorkFolder, ElboStatistics]:
        """What pass two starts from; nothing is written.

        Raises:
            IncompleteError: If pass one is not finished.
            PlanMismatchError: If it was done with another tokenizer.
        """
        plan = load_plan(self.work)
        if plan.head.tokenizer != self.tokenizer.fingerprint:
            raise PlanMismatchError(
                f"{self.work.url} was analysed with tokenizer {plan.head.tokenizer[:16]}…, the "
                f"configuration names {self.tokenizer.fingerprint[:16]}…"
            )
        folder = self._work_folder(plan, "cpu")
        statistics = load_statistics(plan, folder)
        if not self.work.exists(SUMMARY):
            raise IncompleteError(
                f"{self.work.url}: only the sample is analysed; finish pass one with "
                "`infotok analyse`"
            )
        return plan, folder, statistics

    def tokenise(self, control: RunControl, rule: Rule | None = None) -> dict[str, Any]:
        """Pass two and the manifest; returns the summary. Needs a running Ray, but no GPU.

        Args:
            rule: Use this one instead of solving that of the configuration.
        """
        plan, folder, statistics = self.analysed()
        spec = shard_spec(
            self.config, plan, folder, self.output, statistics,
            num_codes=self.tokenizer.shape.codebook_size, rule=rule,
        )  # fmt: skip
        spec = claim_shards(spec)
        progress = self._progress(control, "tokenise", plan.head.shards, 0)
        progress.items = "shards"
        with timed(progress, self.work):
            if self.config.runtime.second_pass == "reuse":
                tokenise(spec, progress)
            else:
                stages = self._stage_spec(plan, control, keep_units=True)
                again = self._progress(control, "recompute", plan.head.videos, plan.head.num_bytes)
                again.start()
                tokenise(spec, progress, lambda rows: analyse_again(plan, rows, stages, again))
        return finalise(spec, statistics, self.tokenizer.shape)

    def _stage_spec(self, plan: Plan, control: RunControl, *, keep_units: bool) -> StageSpec:
        device = _device(self.config)
        self.try_tokenizer(device)
        folder = self._work_folder(plan, device)
        folder.ensure_analysis(self._analysis_document(device))
        return StageSpec(
            config=self.config,
            source_root=plan.head.source_root,
            work=folder,
            run_id=control.run_id,
            device=device,
            keep_units=keep_units,
        )

    def _analysis_document(self, device: str) -> dict[str, Any]:
        document: dict[str, Any] = {
            "device": device,
            "dtype": self._dtype(device),
            "torch": torch.__version__,
        }
        if self.config.routing.token_floor is not None:
            # The receipts of both kinds of run must not be mixed.
            document["token_threshold_min_rate"] = self.config.routing.token_floor
        if device == "cuda":
            # Kernels are chosen by batch size, and their last bit with them.
            document["batch_size"] = self.config.tokenizer.batch_size
            if not self.config.tokenizer.fixed_places:
                document["fixed_places"] = False
        else:
            # So does the number of threads (measured: 36 against 27 of 957,600 golden pixels).
            document["cpu_threads"] = self.config.tokenizer.cpu_threads
        return document

    def _dtype(self, device: str) -> str:
        if self.tokenizer.precision is not None:
            return self.tokenizer.precision
        # Programs that take any precision are not cast unless it is asked for.
        return self.config.tokenizer.dtype_on("cpu" if self.tokenizer.programs else device)

    def _work_folder(self, plan: Plan, device: str) -> WorkFolder:
        key = digest([plan.head.analysis, plan.head.tokenizer, device])
        single_writer = self.config.runtime.single_writer
        return WorkFolder(store=self.work, analysis_key=key, single_writer=single_writer)

    def _progress(self, control: RunControl, stage: str, total: int, total_bytes: int) -> Progress:
        runtime = self.config.runtime
        return Progress(
            control=control,
            stage=stage,
            total=total,
            total_bytes=total_bytes,
            interval_s=runtime.progress_s,
            watchdog_s=runtime.watchdog_s,
        )


def _device(config: RunConfig) -> str:
    wanted = config.tokenizer.device
    has_gpu = ray.cluster_resources().get("GPU", 0) > 0
    if wanted == "cuda" and not has_gpu:
        raise IncompleteError("tokenizer.device = cuda, but the cluster has no GPU")
    return ("cuda" if has_gpu else "cpu") if wanted == "auto" else wanted
