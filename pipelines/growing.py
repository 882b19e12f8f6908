"""New videos for a corpus that is finished, or another try for those it had set aside.

They are analysed and tokenised as a corpus of their own below the work folder, by the same passes
as any, and merged into the corpus they are for:

```
_work/append-000/heads/…   the heads of the corpus as they were: what the merge starts from
_work/append-000/work/…    the work folder of the new videos
_work/append-000/corpus/…  the corpus of the new videos; its data files go when it is merged
_work/append-000/done.json it is merged
```

Until the manifest is written, last, a reader that trusts it sees the corpus of before. Each step
may be repeated, so the same command goes on wherever it was killed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Literal

from pipelines.config import RunConfig
from pipelines.errors import PlanMismatchError
from pipelines.id_set import IdSet
from pipelines.merging import CorpusPart, differences, merge
from pipelines.plan_draft import extra_columns
from pipelines.rate_rules import asked_of
from pipelines.sources import Source
from pipelines.storage import Store
from schemas.dealing import Rule
from schemas.ids import video_id
from schemas.info import CorpusInfo, TokenizerInfo
from schemas.layout import (
    DATA_FOLDERS,
    INFO_PATH,
    MANIFEST_PATH,
    QUARANTINE_PATH,
    STATISTICS_PATH,
)
from schemas.statistics import elbo_unit

__all__ = ["Growth", "only", "open_growth"]

_HEADS = (QUARANTINE_PATH, STATISTICS_PATH, INFO_PATH, MANIFEST_PATH)
_DONE = "done.json"

Rates = Literal["same", "new"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """One appending: where it is done, and what it is for.

    Attributes:
        folder: `append-NNN` of the work folder.
        output: The corpus that grows.
        base: As it was before.
    """

    folder: Store
    output: Store
    base: CorpusPart

    @property
    def work(self) -> Store:
        """Work folder of the new videos."""
        return self.folder.child("work")

    @property
    def corpus(self) -> Store:
        """Corpus of the new videos."""
        return self.folder.child("corpus")

    def check(
        self, config: RunConfig, tokenizer: TokenizerInfo, source: Source, rates: Rates = "same"
    ) -> None:
        """Before hours of work: would the merge refuse what comes of this?

        Args:
            source: Where the new videos are; its listing is left alone.
            rates: Whose rule the new videos get; one of their own must ask for the same.

        Raises:
            PlanMismatchError: Naming what differs.
            PipelineError: If a column of a manifest cannot ride along.
        """
        made = self.base.info.model_copy(
            update={
                "tokenizer": tokenizer,
                "source_root": source.root,
                "extra_columns": {column.name: column.type for column in extra_columns(source)},
                "window": config.window.model_dump(mode="json"),
                "space": config.space.model_dump(mode="json"),
                "elbo_unit": elbo_unit(config.analysis.information),
                "split": config.output.split,
                "licence": config.output.licence,
                "formats": ("parquet", "webdataset")
                if config.output.format == "both"
                else (config.output.format,),
            }
        )
        if rates == "new":
            asked = self.base.info.routing.model_copy(update=asked_of(config.routing))
            made = made.model_copy(update={"routing": asked})
        if found := differences(self.base.info, made):
            raise PlanMismatchError(
                f"what is appended to {self.output.url} must be made as it was:\n  "
                + "\n  ".join(found)
            )

    def new(self) -> Callable[[str], bool]:
        """Whether the corpus knows nothing of a video: neither rows nor a line of quarantine."""
        known = IdSet(self.base.video_ids())
        set_aside = self.set_aside(())
        return lambda video: video not in known and video not in set_aside

    def set_aside(self, reasons: Collection[str]) -> set[str]:
        """Ids of the videos that the corpus had set aside, for one of these reasons (none: any)."""
        return {
            row["video_id"]
            for row in self.base.quarantine
            if not reasons or row["reason"] in reasons
        }

    def rule(self, rates: Rates) -> Rule | None:
        """The rule for the new videos: that of the corpus, or None: one of their own."""
        return self.base.info.routing if rates == "same" else None

    def finish(self, rates: Rates) -> CorpusInfo:
        """Merge the corpus of the new videos into that which grows.

        Raises:
            PlanMismatchError: If they do not fit together after all.
        """
        part = replace(CorpusPart.read(self.corpus), own_statistics=rates == "new")
        info = merge([self.base, part], self.output)
        self.folder.replace(_DONE, json.dumps({"plan_id": part.info.plan_id}).encode())
        for folder, _ in DATA_FOLDERS.values():
            self.corpus.delete_folder(folder)
        return info


def open_growth(output: Store, work: Store) -> Growth:
    """Begin an appending, or find the one that was begun and not finished.

    Raises:
        IncompleteError: If there is no finished corpus to append to.
        PipelineError: If its heads are not of one corpus.
    """
    number = 0
    while work.exists(f"append-{number:03d}/{_DONE}"):
        number += 1
    folder = work.child(f"append-{number:03d}")
    heads = folder.child("heads")
    if not folder.exists("work/plan.json"):
        # Nothing was begun. Looked at first, and put aside before anything is changed.
        CorpusPart.read(output)
        for path in _HEADS:
            heads.replace(path, output.read(path))
    return Growth(folder=folder, output=output, base=CorpusPart.read(output, heads=heads))


def only(source: Source, wanted: Callable[[str], bool]) -> Source:
    """Of a listing the videos with these ids."""
    return replace(source, objects=(o for o in source.objects if wanted(video_id(o.uri))))
